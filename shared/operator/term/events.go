package term

import "github.com/dynast-io/dynast/shared/observe/events"

// EventColour returns the colour of a kind of event: red for what needs an operator now, yellow for what
// an operator should look at soon, and green for a recovery.
func EventColour(kind string) Colour {
	switch level := events.LevelOf(kind); {
	case level == events.Error:
		return Red
	case level == events.Warning:
		return Yellow
	case events.Recovery(kind):
		return Green
	}
	return Plain
}
