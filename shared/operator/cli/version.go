package cli

import (
	"fmt"
	"io"
	"os"
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

// Render prints the version in one line.
func (v version) Render(out io.Writer) error {
	_, err := fmt.Fprintf(out, "dynast %s, %s %s/%s\n", v.Version, v.Go, v.OS, v.Arch)
	return err
}

func (a *App) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error { return printResult(os.Stdout, *asJSON, a.version()) }
	return cmd
}
