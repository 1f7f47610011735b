//go:build profile

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"
)

// A build with the tag profile writes a profile of each process's processor time into the
// directory DYNAST_CPU_PROFILE, for scripts/profile.sh. A process of a cluster may end at any
// moment, so the profile covers a fixed time from the start of the process on.
func init() {
	dir := os.Getenv("DYNAST_CPU_PROFILE")
	if dir == "" || len(os.Args) < 2 || os.Args[1] == "bench" {
		return
	}
	length, err := time.ParseDuration(os.Getenv("DYNAST_CPU_PROFILE_FOR"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "DYNAST_CPU_PROFILE_FOR is not a duration:", err)
		os.Exit(2)
	}
	go func() {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d.part", os.Getpid())))
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "profile:", err)
			return
		}
		time.Sleep(length)
		pprof.StopCPUProfile()
		if err := os.Rename(f.Name(), filepath.Join(dir, fmt.Sprintf("%d.pprof", os.Getpid()))); err != nil {
			fmt.Fprintln(os.Stderr, "profile:", err)
		}
	}()
}
