package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/operator/imports"
)

func (a *App) importCommand() *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Write service blocks for the programs of another supervisor",
		Long: `Writes service blocks of a configuration to standard output. FILE is a Procfile, a
configuration of supervisord, a process-compose file, or a unit of systemd. The kind is found from
the name and the content. Units that belong together are imported together: a .socket or .timer
unit with its .service unit, and drop-in files with their unit.

A comment in a block names each directive that has no counterpart, and says what to do.`,
		Example: `  dynast import Procfile >services.hcl
  dynast import /etc/supervisor/supervisord.conf
  dynast import /etc/systemd/system/web.service /etc/systemd/system/web.socket`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&as, "as", "", "`KIND` of the files: procfile, supervisord, process-compose or systemd; default: found from name and content")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var files []imports.File
		for _, name := range args {
			f, err := importFile(name)
			if err != nil {
				return asError(fmt.Errorf("import: %w", err))
			}
			files = append(files, f)
		}
		out, err := imports.Import(files, imports.Options{Kind: imports.Kind(as), Glob: importGlob})
		if err != nil {
			return &Error{Code: ExitUsage, Err: fmt.Errorf("import: %w", err)}
		}
		_, err = cmd.OutOrStdout().Write(out)
		return asError(err)
	}
	return cmd
}

func importFile(name string) (imports.File, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return imports.File{}, err
	}
	path, err := filepath.Abs(name)
	return imports.File{Name: name, Dir: filepath.Dir(path), Content: content}, err
}

// importGlob reads the files that match a pattern.
func importGlob(dir, pattern string) ([]imports.File, error) {
	if !filepath.IsAbs(pattern) {
		// A directory with special characters in its name is not a pattern.
		pattern = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir) + string(filepath.Separator) + pattern
	}
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var files []imports.File
	for _, name := range names {
		f, err := importFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}
