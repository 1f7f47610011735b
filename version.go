package main

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// commit and date are set by the linker in release builds, as version is.
var commit, date string

// builtFrom describes the source of this build for 'dynast version': the commit and its time.
// What the linker did not set comes from the build information that Go records in a checkout.
// The result is empty when neither is known, for example after 'go install ...@latest'.
func builtFrom() string {
	commit, date := commit, date
	if info, ok := debug.ReadBuildInfo(); ok {
		recorded := map[string]string{}
		for _, s := range info.Settings {
			recorded[s.Key] = s.Value
		}
		commit, date = cmp.Or(commit, recorded["vcs.revision"]), cmp.Or(date, recorded["vcs.time"])
	}
	text := ""
	if commit != "" {
		text += fmt.Sprintf(", commit %.12s", commit)
	}
	if date != "" {
		text += ", of " + date
	}
	return text
}
