package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/etcdctl/v3/ctlv3/command"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/rules/core"
)

// ExitUsage is the exit code for an invalid command line or configuration.
const ExitUsage core.ExitCode = 2

// App holds what all commands share.
type App struct {
	// Defaults is the built-in configuration, which is the file config.hcl of the repository.
	Defaults []byte
	// Version is the version of this build. Commit is the commit of its source, and Date its time
	// (RFC 3339); both may be empty.
	Version, Commit, Date string

	builtIn *config.Config // Defaults, parsed for the help
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
		a.statusCommand(),
		a.versionCommand(),
	}
	commands = append(commands, a.serviceCommands()...)
	return append(commands,
		a.ctlShortcut(command.NewPutCommand(), "put KEY [VALUE]", "Write a key",
			"A missing VALUE is read from standard input. A -- must stand before a key or a value that begins with a dash.\n\n"),
		a.ctlShortcut(command.NewGetCommand(), "get KEY [RANGE_END]", "Read a key, or a range of keys",
			"With RANGE_END it reads all keys from KEY on that are less than RANGE_END.\n\n"),
		a.ctlShortcut(command.NewDelCommand(), "del KEY [RANGE_END]", "Delete a key, or a range of keys",
			"With RANGE_END it deletes all keys from KEY on that are less than RANGE_END. It prints how many it has deleted.\n\n"))
}

// Configured gives a command its configuration: a file or the built-in default, and then the
// environment and the flags, which override single fields.
type Configured struct {
	defaults []byte
	file     string
	flags    *config.Flags
}

// WithCluster adds to a command the flags that say where the cluster is, and those of the named
// fields. It is for all commands that do not start a server: there, no other field has an effect.
func (a *App) WithCluster(cmd *cobra.Command, fields ...string) *Configured {
	return a.WithConfig(cmd, append([]string{"data_dir"}, fields...)...)
}

// WithConfig adds --config and the flags of the named fields to a command, or the flags of all
// fields if none is named.
func (a *App) WithConfig(cmd *cobra.Command, fields ...string) *Configured {
	return a.bind(cmd.Flags(), fields...)
}

func (a *App) bind(fs *pflag.FlagSet, fields ...string) *Configured {
	c := &Configured{defaults: a.Defaults}
	fs.StringVar(&c.file, "config", "", "configuration `FILE`, or off for the built-in one; default: $DYNAST_CONFIG, ./config.hcl, /etc/dynast/config.hcl, or the built-in one")
	c.flags = config.BindFlags(fs, fields...)
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
