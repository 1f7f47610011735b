package log

import "github.com/dynast-io/dynast/shared/rules/entry"

// Entry is one record of the log; see entry.Entry. It is an alias, so that code which only
// reasons about entries need not import this package's I/O.
type Entry = entry.Entry

// Position names a place in the log; see entry.Position. The zero Position is before the first
// entry.
type Position = entry.Position
