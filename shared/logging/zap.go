package logging

import (
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// lastWords is how long a line that precedes an exit or a panic may take.
const lastWords = time.Second

// Zap returns the logger of a component for etcd's packages, which want zap's.
// What they call Info is Debug here, and their Debug Trace: they tell the
// operator of etcd what the operator of dynast need not know. Before a Panic
// or a Fatal, which ends the process, the logs are flushed; zap.WithFatalHook
// among the options can give the end another exit code than 1.
func (l *Logs) Zap(name string, opts ...zap.Option) *zap.Logger {
	return zap.New(&zapCore{logs: l, logger: l.Logger(name)}, opts...)
}

// zapCore forwards to hclog.
type zapCore struct {
	logs   *Logs
	logger hclog.Logger
	// prefix is of the namespace opened by With ("a.b.").
	prefix string
}

func level(l zapcore.Level) hclog.Level {
	switch {
	case l < zapcore.InfoLevel:
		return hclog.Trace
	case l == zapcore.InfoLevel:
		return hclog.Debug
	case l == zapcore.WarnLevel:
		return hclog.Warn
	default:
		return hclog.Error
	}
}

// Enabled implements zapcore.LevelEnabler.
func (c *zapCore) Enabled(l zapcore.Level) bool { return level(l) >= c.logger.GetLevel() }

// With implements zapcore.Core.
func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	args, prefix := arguments(c.prefix, fields)
	return &zapCore{logs: c.logs, logger: c.logger.With(args...), prefix: prefix}
}

// Check implements zapcore.Core.
func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	logger := c.logger
	if e.LoggerName != "" {
		logger = logger.Named(e.LoggerName)
	}
	args, _ := arguments(c.prefix, fields)
	if e.Level > zapcore.ErrorLevel && e.Stack != "" {
		args = append(args, "stack", e.Stack)
	}
	logger.Log(level(e.Level), e.Message, args...)
	if e.Level > zapcore.ErrorLevel {
		c.logs.Flush(lastWords)
	}
	return nil
}

// Sync implements zapcore.Core. It does nothing: callers sync when they close
// a component, and that is no reason to wait for a terminal.
func (c *zapCore) Sync() error { return nil }

// arguments are hclog's pairs for zap's fields, and the namespace that they open.
func arguments(prefix string, fields []zapcore.Field) ([]any, string) {
	args := make([]any, 0, 2*len(fields))
	for _, f := range fields {
		if f.Type == zapcore.NamespaceType {
			prefix += f.Key + "."
			continue
		}
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		for _, k := range slices.Sorted(maps.Keys(enc.Fields)) {
			if f.Type == zapcore.ErrorType && k == f.Key+"Verbose" {
				continue // the same error again, with a stack
			}
			args = append(args, prefix+k, enc.Fields[k])
		}
	}
	return args, prefix
}
