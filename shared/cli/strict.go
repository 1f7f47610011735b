package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Strict has every command below root say what is wrong with its arguments and
// flags, where, and what it wants; cobra's own words leave one of these out. A
// word that is no command of a group is a mistake too, and not a reason for its help.
// Commands that parse their own arguments are left alone.
func Strict(root *cobra.Command) {
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%s: %s", name(cmd), flagError(cmd.Flags(), err))
	})
	for _, cmd := range root.Commands() {
		strict(cmd)
	}
}

func strict(cmd *cobra.Command) {
	for _, child := range cmd.Commands() {
		strict(child)
	}
	if cmd.DisableFlagParsing {
		return
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return fmt.Errorf("%s: %s; usage: %s", name(cmd), argumentError(args, err), cmd.UseLine())
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = group
	}
}

// name is how a command is called, without the program's own name.
func name(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// group is run for a command that only has commands below it.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return fmt.Errorf("%s: there is no command %q; there are %s", name(cmd), args[0], strings.Join(names, ", "))
}

// argumentError puts cobra's texts in order.
func argumentError(args []string, err error) string {
	text := err.Error()
	switch {
	case strings.HasPrefix(text, "unknown command"):
		return fmt.Sprintf("%q is an argument, and there is none to give", args[0])
	case strings.HasPrefix(text, "accepts"), strings.HasPrefix(text, "requires"):
		return fmt.Sprintf("it %s (%s)", strings.NewReplacer("arg(s)", "argument(s)").Replace(text), quotedList(args))
	}
	return text
}

func quotedList(args []string) string {
	if len(args) == 0 {
		return "none were given"
	}
	return strings.Join(args, ", ")
}

var goSyntax = regexp.MustCompile(`(strconv\.\w+: parsing "[^"]*": |time: )`)

// wants says for the kinds of flags of the flag package what they take; those of
// the configuration say it themselves.
var wants = map[string]string{
	"bool": "true or false", "int": "a whole number", "uint": "a whole number from 0", "uint64": "a whole number from 0",
	"duration": "a duration with its unit, for example 30s", "float64": "a number",
}

func flagError(flags *pflag.FlagSet, err error) string {
	text := goSyntax.ReplaceAllString(err.Error(), "")
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) && !strings.Contains(text, "want ") {
		if want := wants[invalid.GetFlag().Value.Type()]; want != "" {
			text += "; want " + want
		}
	}
	return text
}
