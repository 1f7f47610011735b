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
	// Commit is the commit of the source, and Date its time (RFC 3339). They are empty if the build
	// does not know them.
	Commit string `json:"commit,omitempty"`
	Date   string `json:"date,omitempty"`
	Go     string `json:"go"`
	OS     string `json:"os"`
	Arch   string `json:"arch"`
}

func (a *App) version() version {
	return version{Schema: resultSchema, Version: a.Version, Commit: a.Commit, Date: a.Date, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
}

func (v version) text() string {
	from := ""
	if v.Commit != "" {
		from = fmt.Sprintf(", commit %.12s of %s", v.Commit, v.Date)
	}
	return fmt.Sprintf("dynast %s%s, %s %s/%s", v.Version, from, v.Go, v.OS, v.Arch)
}

// Render prints the version in one line.
func (v version) Render(out io.Writer) error {
	_, err := fmt.Fprintln(out, v.text())
	return err
}

func (a *App) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version, and the commit of the source", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return printResult(cmd.OutOrStdout(), *asJSON, a.version())
	}
	return cmd
}
