package logging

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Prune removes the log files of members that are gone, except for the newest ones. Each process
// has its own address, and so its own files; without Prune a directory would grow with every
// replaced process. living are the addresses of the members that write there.
func Prune(dir string, living []string, newest int) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("prune logs: %w", err)
	}
	type files struct {
		paths  []string
		latest time.Time
	}
	gone := map[string]*files{}
	for _, e := range entries {
		member, ok := memberOf(e.Name())
		info, err := e.Info()
		if !ok || err != nil || slices.ContainsFunc(living, func(a string) bool { return FileName(a) == member+".log" }) {
			continue
		}
		if gone[member] == nil {
			gone[member] = &files{}
		}
		f := gone[member]
		f.paths = append(f.paths, filepath.Join(dir, e.Name()))
		if info.ModTime().After(f.latest) {
			f.latest = info.ModTime()
		}
	}
	var all []*files
	for _, f := range gone {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *files) int { return cmp.Compare(b.latest.UnixNano(), a.latest.UnixNano()) })
	for _, f := range all[min(newest, len(all)):] {
		for _, path := range f.paths {
			if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
				err = errors.Join(err, fmt.Errorf("prune logs: %w", e))
			}
		}
	}
	return err
}

// closedLayout is the time in the name of a closed file.
const closedLayout = "-2006-01-02T15-04-05.000"

// memberOf returns the member to which a file belongs: 127.0.0.1_7401 for 127.0.0.1_7401.log and
// 127.0.0.1_7401-2026-01-02T15-04-05.000.log. Other files belong to no member.
func memberOf(name string) (string, bool) {
	stem, ok := strings.CutSuffix(name, ".log")
	if !ok {
		return "", false
	}
	if at := len(stem) - len(closedLayout); at > 0 {
		if _, err := time.Parse(closedLayout, stem[at:]); err == nil {
			stem = stem[:at]
		}
	}
	host, port, ok := strings.Cut(stem, "_")
	return stem, ok && host != "" && port != ""
}
