package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
)

func (a *App) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show or validate the configuration",
		Long: "The first of these decides which configuration file dynast uses: --config, the variable DYNAST_CONFIG, config.hcl in\n" +
			"the working directory, /etc/dynast/config.hcl, and the built-in configuration. 'off' as the value of --config or\n" +
			"DYNAST_CONFIG stands for the built-in one. The variable DYNAST_DATA_DIR overrides data_dir of the file, and the flag\n" +
			"--data-dir overrides both.",
	}
	cmd.AddCommand(a.configPrintCommand(), a.configCheckCommand())
	return cmd
}

func (a *App) configPrintCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print the effective configuration, and where each value comes from",
		Long: "The output is a configuration file. All paths in it are absolute. A comment beside each field names the file and\n" +
			"the line, the variable or the flag that set it. The command starts nothing and needs no cluster.",
		Args: cobra.NoArgs,
	}
	c := a.WithConfig(cmd)
	c.run(cmd, func(_ context.Context, cfg *config.Config, _ []string) error {
		return printConfig(os.Stdout, c.Location(), cfg)
	})
	return cmd
}

func printConfig(out io.Writer, at config.Location, cfg *config.Config) error {
	text, err := cfg.HCL()
	if err == nil {
		_, err = fmt.Fprintf(out, "# The effective configuration, from %s.\n\n%s", at, text)
	}
	return err
}

func (a *App) configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Validate a configuration without starting anything",
		Long: "The command reads FILE, or without it the file that 'dynast up' would use, and reports every mistake with file and\n" +
			"line. If there is none, it checks what the services need from this host: programs, directories, users and env\n" +
			"files. It exits with 0 if all is well, and with 2 otherwise.",
		Args: cobra.MaximumNArgs(1),
	}
	c := a.WithConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if cmd.Flags().Changed("config") {
				return fmt.Errorf("config check: both --config and a FILE are given: give one of them")
			}
			c.file = args[0]
		}
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(os.Stdout, c.Location()); err != nil {
			return asError(err)
		}
		return asError(Check(cfg, os.Stdout))
	}
	return cmd
}
