package cli

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/core"
)

// ExitUsage is for a command line or a configuration that cannot be understood.
const ExitUsage core.ExitCode = 2

// App is what all commands share.
type App struct {
	// Defaults is the built-in configuration: the file that the repository ships.
	Defaults []byte
	// Version is the build.
	Version string
}

// Commands are all commands that talk to a running cluster or to its files.
// Those that run a member are main's.
func (a *App) Commands() []*cobra.Command {
	commands := []*cobra.Command{
		a.treeCommand(),
		a.topCommand(),
		a.eventsCommand(),
		a.logsCommand(),
		a.stopCommand(),
		a.promoteCommand(),
		a.addCommand(),
		a.removeCommand(),
		a.scaleCommand(),
		a.reloadCommand(),
		a.upgradeCommand(),
		a.ctlCommand(),
		a.snapshotCommand(),
		a.benchCommand(),
		a.simCommand(),
		a.chaosCommand(),
		a.manCommand(),
	}
	for _, name := range []string{"put", "get", "del"} {
		commands = append(commands, a.ctlAlias(name))
	}
	return commands
}

// Configured is a command's access to the configuration: a file, or the
// built-in default, and the flags over it.
type Configured struct {
	defaults []byte
	file     string
	flags    *config.Flags
}

// WithConfig gives a command the flags of the configuration.
func (a *App) WithConfig(cmd *cobra.Command) *Configured {
	c := &Configured{defaults: a.Defaults}
	cmd.Flags().StringVar(&c.file, "config", "", "configuration `FILE`; without it the built-in default, which is config.hcl")
	c.flags = config.BindFlags(cmd.Flags())
	return c
}

// Load reads the configuration, with the flags over it. The error has the exit code ExitUsage.
func (c *Configured) Load() (*config.Config, error) {
	cfg, err := config.Load(c.file, c.defaults)
	if err == nil {
		err = c.flags.Apply(cfg)
	}
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err}
	}
	return cfg, nil
}

// Source is where cfg, which Load returned, came from, for whoever reads it again in
// another directory.
func (c *Configured) Source(cfg *config.Config) config.Source {
	file := c.file
	if abs, err := filepath.Abs(file); err == nil && file != "" {
		file = abs
	}
	return c.flags.Source(file, cfg)
}

// asError gives an error of a command that was understood the exit code 1,
// unless it has its own.
func asError(err error) error {
	var coded *Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return &Error{Code: core.ExitError, Err: err}
}
