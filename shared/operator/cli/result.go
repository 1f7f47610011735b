package cli

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"
)

// resultSchema is the version of the JSON form of the results in this package. As long as it is the
// same, fields are only added.
const resultSchema = 1

// rendered is the result of a command. Its JSON form is for programs, Render for people.
type rendered interface{ Render(io.Writer) error }

// printResult prints a result as one line of JSON, or for people.
func printResult(out io.Writer, asJSON bool, r rendered) error {
	if asJSON {
		return json.NewEncoder(out).Encode(r)
	}
	return r.Render(out)
}

// jsonFlag adds --json to a command.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print one JSON object")
}
