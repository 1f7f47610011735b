package main

import (
	"cmp"
	"runtime/debug"
)

// commit and date are set by the linker in release builds, as version is.
var commit, date string

// source returns the commit of the source that this program was built from, and the commit's time
// (RFC 3339). What the linker did not set comes from the build information that Go records in a
// checkout. Both are empty when they are unknown, for example after 'go install ...@latest'.
func source() (revision, time string) {
	recorded := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			recorded[s.Key] = s.Value
		}
	}
	return cmp.Or(commit, recorded["vcs.revision"]), cmp.Or(date, recorded["vcs.time"])
}
