package imports

import (
	"regexp"
	"sync"
)

// pattern returns a regular expression that is compiled when it is first used. Every member of a
// cluster is this program too, and only 'dynast import' needs the expressions.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}
