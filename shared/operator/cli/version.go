package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

// version is what 'dynast version --json' prints.
type version struct {
	Schema  int    `json:"schema"`
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (a *App) version() version {
	return version{resultSchema, a.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
}

func (v version) text() string {
	return fmt.Sprintf("dynast %s, %s %s/%s", v.Version, v.Go, v.OS, v.Arch)
}

// Render prints the version in one line.
func (v version) Render(out io.Writer) error {
	_, err := fmt.Fprintln(out, v.text())
	return err
}

func (a *App) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return printResult(cmd.OutOrStdout(), *asJSON, a.version())
	}
	return cmd
}
