package logging

import (
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// lastWords is how long a line may take that precedes an exit or a panic.
const lastWords = time.Second

// Zap returns a component's logger for etcd's packages, which use zap. Their Info becomes Debug
// here, and their Debug becomes Trace, because such lines interest an operator of etcd but not
// of dynast. A Panic or a Fatal ends the process, so the logs are flushed before. With the
// option zap.WithFatalHook the exit code can be other than 1.
func (l *Logs) Zap(name string, opts ...zap.Option) *zap.Logger {
	return zap.New(&zapCore{logs: l, logger: l.Logger(name)}, opts...)
}

// zapCore passes zap's lines on to hclog.
type zapCore struct {
	logs   *Logs
	logger hclog.Logger
	// prefix is the namespace that With opened ("a.b.").
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

// Sync implements zapcore.Core. It does nothing. Callers sync when they close a component, and
// that should not wait for a terminal.
func (c *zapCore) Sync() error { return nil }

// arguments returns hclog's pairs for zap's fields, and the namespace that the fields open.
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
				continue // the same error once more, with a stack
			}
			args = append(args, prefix+k, enc.Fields[k])
		}
	}
	return args, prefix
}
