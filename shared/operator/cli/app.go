package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/rules/core"
)

// ExitUsage is the exit code for an invalid command line or configuration.
const ExitUsage core.ExitCode = 2

// App holds what all commands share.
type App struct {
	// Defaults is the built-in configuration, which is the file config.hcl of the repository.
	Defaults []byte
	// Version is the version of this build.
	Version string
}

// Commands returns all commands except those that run a member, which are in package main.
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
		a.checkCommand(),
		a.configCommand(),
		a.reloadCommand(),
		a.upgradeCommand(),
		a.ctlCommand(),
		a.snapshotCommand(),
		a.benchCommand(),
		a.simCommand(),
		a.chaosCommand(),
		chaosProgramCommand(),
		a.importCommand(),
		a.hostsCommand(),
		a.manCommand(),
	}
	commands = append(commands, a.serviceCommands()...)
	for _, name := range []string{"put", "get", "del"} {
		commands = append(commands, a.ctlAlias(name))
	}
	return commands
}

// Configured gives a command its configuration: a file or the built-in default, and then the
// environment and the flags, which override single fields.
type Configured struct {
	defaults []byte
	file     string
	flags    *config.Flags
}

// WithConfig adds the configuration flags to a command.
func (a *App) WithConfig(cmd *cobra.Command) *Configured {
	c := &Configured{defaults: a.Defaults}
	cmd.Flags().StringVar(&c.file, "config", "", "configuration `FILE`, or off for the built-in one; default: $DYNAST_CONFIG, ./config.hcl, /etc/dynast/config.hcl, or the built-in one")
	c.flags = config.BindFlags(cmd.Flags())
	return c
}

// Load finds and reads the configuration and applies the environment and the flags to it. Its error
// has the exit code ExitUsage.
func (c *Configured) Load() (*config.Config, error) {
	at := c.Location()
	cfg, err := at.Load(c.defaults)
	if err == nil {
		err = c.flags.UseEnv(os.Getenv)
	}
	if err == nil {
		err = c.flags.Apply(cfg)
	}
	if err == nil {
		err = at.Check(cfg)
	}
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err}
	}
	return cfg, nil
}

// Location returns the configuration file that Load reads, and why.
func (c *Configured) Location() config.Location { return config.Locate(c.file) }

// run makes cmd load the configuration and then call f. An error of f that has no exit code
// gets ExitError.
func (c *Configured) run(cmd *cobra.Command, f func(ctx context.Context, cfg *config.Config, args []string) error) {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		return asError(f(cmd.Context(), cfg, args))
	}
}

// Source returns where cfg, a result of Load, came from. The file name is absolute, so that a
// process in another directory can read it again.
func (c *Configured) Source(cfg *config.Config) config.Source {
	file := c.Location().File
	if abs, err := filepath.Abs(file); err == nil && file != "" {
		file = abs
	}
	return c.flags.Source(file, cfg)
}

// asError gives an error the exit code ExitError, unless it already has an exit code.
func asError(err error) error {
	var coded *Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return &Error{Code: core.ExitError, Err: err}
}
