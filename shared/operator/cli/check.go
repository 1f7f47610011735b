package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

func (a *App) checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration without starting anything",
		Long: "The command reads the configuration and reports every mistake with file and line. If there is none, it checks\n" +
			"what the services need from this host: programs, directories, users and env files. It exits with 0 if all is\n" +
			"well, and with 2 otherwise.",
		Args: cobra.NoArgs,
	}
	c := a.WithConfig(cmd)
	c.run(cmd, func(_ context.Context, cfg *config.Config, _ []string) error { return Check(cfg, os.Stdout) })
	return cmd
}

// Check checks what the services of a valid configuration need from this host. It prints a line
// for each service, or returns all problems as one error with the exit code ExitUsage.
func Check(cfg *config.Config, out io.Writer) error {
	var problems []string
	for _, s := range cfg.Services {
		if err := s.CheckHost(); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if len(problems) > 0 {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("check:\n%s", strings.Join(problems, "\n"))}
	}
	if _, err := fmt.Fprintf(out, "ok: %s\n", plural.Count(len(cfg.Services), "service")); err != nil {
		return err
	}
	for _, s := range cfg.Services {
		if _, err := fmt.Fprintf(out, "  %s: %s\n", s.Name, describe(s)); err != nil {
			return err
		}
	}
	return nil
}

// describe says in a few words how a service runs.
func describe(s config.Service) string {
	program := "script"
	if len(s.Command) > 0 {
		program = s.Command[0]
	}
	text := fmt.Sprintf("%s, %s, restart %s", program, plural.Count(s.Instances, "instance"), s.Restart)
	if s.Schedule != "" {
		text += ", schedule " + s.Schedule
	}
	return text
}
