package cli

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dynast-io/dynast/shared/config"
)

// helpWidth is the width of the help in columns.
const helpWidth = 80

// usageTemplate is cobra's, with lines of at most helpWidth columns.
const usageTemplate = `Usage:{{if .Runnable}}
  {{wrapLine .UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{end}}{{if gt (len .Aliases) 0}}

Aliases:
  {{.NameAndAliases}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}

Available Commands:{{range $cmds}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{else}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if not .AllChildCommandsHaveGroup}}

Additional Commands:{{range $cmds}}{{if (and (eq .GroupID "") (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{flags .LocalFlags}}{{end}}{{if .HasAvailableInheritedFlags}}

Global Flags:
{{flags .InheritedFlags}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} [command] --help" says more about a command.{{end}}
`

const helpTemplate = `{{with (or .Long .Short)}}{{wrapText .}}

{{end}}{{.UsageString}}`

// Describe completes the texts of the commands below root: groups, examples, defaults of the flags,
// and what people may type in place of a command.
func (a *App) Describe(root *cobra.Command) {
	root.Version = a.version().text()
	root.SetVersionTemplate("{{.Version}}\n")
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
	}
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("completion")
	complete(root)
	cobra.AddTemplateFunc("flags", func(fs *pflag.FlagSet) string { return strings.TrimRight(fs.FlagUsagesWrapped(helpWidth), " \n") })
	cobra.AddTemplateFunc("wrapText", wrapText)
	cobra.AddTemplateFunc("wrapLine", func(s string) string {
		return strings.ReplaceAll(ansi.Wordwrap(s, helpWidth-6, " "), "\n", "\n      ")
	})
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate(helpTemplate)
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		a.showDefaults(cmd)
		help(cmd, args)
	})
}

func complete(cmd *cobra.Command) {
	t := texts[commandPath(cmd)]
	if cmd.HasParent() && cmd.Parent() == cmd.Root() {
		cmd.GroupID = t.group
	}
	if t.example != "" {
		cmd.Example = "  " + strings.ReplaceAll(t.example, "\n", "\n  ")
	}
	cmd.SuggestFor = append(cmd.SuggestFor, t.synonyms...)
	for _, child := range cmd.Commands() {
		complete(child)
	}
}

// showDefaults makes the flags of configuration fields show the built-in values.
func (a *App) showDefaults(cmd *cobra.Command) {
	if a.builtIn == nil {
		cfg, err := config.Load("", a.Defaults)
		if err != nil {
			return // the program does not start with such defaults
		}
		a.builtIn = cfg
	}
	here, _ := os.Getwd()
	for _, fs := range []*pflag.FlagSet{cmd.LocalFlags(), cmd.InheritedFlags()} {
		fs.VisitAll(func(flag *pflag.Flag) {
			if field, ok := config.FieldOfFlag(flag.Name); ok {
				value := a.builtIn.Text(field)
				if path, err := filepath.Rel(here, value); err == nil && filepath.IsAbs(value) {
					value = path
				}
				flag.DefValue = value
			}
		})
	}
}

// wrapText wraps the paragraphs of a text. It leaves those alone that have lines with a meaning of
// their own, such as commands.
func wrapText(text string) string {
	paragraphs := strings.Split(strings.TrimSpace(text), "\n\n")
	for i, p := range paragraphs {
		if strings.HasPrefix(p, " ") || strings.Contains(p, "\n ") || strings.Contains("\n"+p, "\n$") || strings.Contains(p, "\n\t") {
			continue
		}
		paragraphs[i] = ansi.Wordwrap(strings.Join(strings.Fields(p), " "), helpWidth, " ")
	}
	return strings.Join(paragraphs, "\n\n")
}
