package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dynast-io/dynast/shared/config"
)

// Strict gives root and every command below it better errors for wrong arguments and flags: each error
// names the command, the mistake and what the command wants. The errors of cobra leave one of
// these out. An unknown command of a group is an error too, where cobra would print the help.
// Strict does not change commands that parse their own arguments.
func Strict(root *cobra.Command) {
	root.SetFlagErrorFunc(flagProblem)
	strict(root)
}

// flagProblem is the error of a command for a wrong flag.
func flagProblem(cmd *cobra.Command, err error) error {
	return fmt.Errorf("%s: %s", commandPath(cmd), flagError(err))
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
				if cmd.HasSubCommands() && len(args) > 0 {
					return group(cmd, args)
				}
				return fmt.Errorf("%s: %s; usage: %s", commandPath(cmd), argumentError(args, err), cmd.UseLine())
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = group
	}
}

// commandPath returns the path of a command without the name of the program.
func commandPath(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// group runs a command that only has subcommands.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	text := unknownCommand(cmd, args[0])
	if cmd.HasParent() {
		text = commandPath(cmd) + ": " + text
	}
	return errors.New(text)
}

// unknownCommand says that a command has no such subcommand, and what the user may have meant.
func unknownCommand(cmd *cobra.Command, word string) string {
	var names, near []string
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		names = append(names, c.Name())
		if slices.Contains(c.SuggestFor, word) {
			return fmt.Sprintf("unknown command %q: did you mean '%s'?", word, c.CommandPath())
		}
		if below, _, err := c.Find([]string{word}); err == nil && below != c && below.Name() == word {
			near = append(near, below.CommandPath())
		}
	}
	cmd.SuggestionsMinimumDistance = 2 // as cobra has it for the root
	for _, suggestion := range cmd.SuggestionsFor(word) {
		near = append(near, cmd.CommandPath()+" "+suggestion)
	}
	slices.Sort(near)
	near = slices.Compact(near)
	switch {
	case len(near) == 0 && !cmd.HasParent():
		return fmt.Sprintf("unknown command %q: '%s --help' lists all", word, cmd.CommandPath())
	case len(near) == 0:
		return fmt.Sprintf("unknown command %q: must be one of %s", word, strings.Join(names, ", "))
	}
	return fmt.Sprintf("unknown command %q: did you mean '%s'?", word, strings.Join(near, "' or '"))
}

// argumentError rewrites an error of cobra about arguments.
func argumentError(args []string, err error) string {
	text := err.Error()
	switch {
	case strings.HasPrefix(text, "unknown command"):
		return fmt.Sprintf("unexpected argument %q: the command takes no arguments", args[0])
	case strings.HasPrefix(text, "accepts"), strings.HasPrefix(text, "requires"):
		return fmt.Sprintf("the command %s (%s)", strings.NewReplacer("arg(s)", "argument(s)").Replace(text), quotedList(args))
	}
	return text
}

func quotedList(args []string) string {
	if len(args) == 0 {
		return "none given"
	}
	return strings.Join(args, ", ")
}

// without returns an error if one of the flags was given although, on a condition, it has no effect.
func without(cmd *cobra.Command, condition bool, why string, flags ...string) error {
	for _, flag := range flags {
		if condition && cmd.Flags().Changed(flag) {
			return &Error{Code: ExitUsage, Err: fmt.Errorf("%s: --%s %s", commandPath(cmd), flag, why)}
		}
	}
	return nil
}

// noFlag says what is wrong with a flag that the command does not have.
func noFlag(flag string) string {
	text := "unknown flag: --" + flag
	if field, ok := config.FieldOfFlag(flag); ok {
		text += fmt.Sprintf(" (%s is a setting of the server: give the flag to 'dynast up', or set the field in the configuration file)", field)
	}
	return text
}

var goSyntax = regexp.MustCompile(`(strconv\.\w+: parsing "[^"]*": |time: )`)

// wants says which values the types of package pflag take. The errors of configuration flags
// already say it.
var wants = map[string]string{
	"bool": "true or false", "int": "a whole number", "uint": "a whole number from 0", "uint64": "a whole number from 0",
	"duration": "a duration with its unit, for example 30s", "float64": "a number",
}

func flagError(err error) string {
	var missing *pflag.NotExistError
	if errors.As(err, &missing) && missing.GetSpecifiedShortnames() == "" {
		return noFlag(missing.GetSpecifiedName())
	}
	text := goSyntax.ReplaceAllString(err.Error(), "")
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) && !strings.Contains(text, "want ") {
		if want := wants[invalid.GetFlag().Value.Type()]; want != "" {
			text += "; want " + want
		}
	}
	return text
}
