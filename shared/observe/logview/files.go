package logview

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/dynast-io/dynast/shared/observe/logging"
)

// rotated matches the name of a closed file: the member's name and the time of closing.
var rotated = regexp.MustCompile(`^(.+)-(\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}\.\d{3})\.log$`)

// memberFiles are the files of one member: the closed ones, oldest first, and the current one.
type memberFiles struct {
	name  string // 127.0.0.1_7401
	paths []string
}

// list returns the files of all members in a directory, or of the member with an address.
func list(dir, address string) ([]memberFiles, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no log directory %s, nothing was logged there yet: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read log directory: %w", err)
	}
	closed, current := map[string][]string{}, map[string]string{}
	for _, e := range entries {
		name := e.Name()
		if m := rotated.FindStringSubmatch(name); m != nil {
			closed[m[1]] = append(closed[m[1]], filepath.Join(dir, name))
		} else if member, ok := strings.CutSuffix(name, ".log"); ok {
			current[member] = filepath.Join(dir, name)
		}
	}
	var out []memberFiles
	for member := range current {
		if _, ok := closed[member]; !ok {
			closed[member] = nil
		}
	}
	for member, paths := range closed {
		if address != "" && member+".log" != logging.FileName(address) {
			continue
		}
		slices.Sort(paths) // the names contain the time
		if path, ok := current[member]; ok {
			paths = append(paths, path)
		}
		out = append(out, memberFiles{name: member, paths: paths})
	}
	slices.SortFunc(out, func(a, b memberFiles) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// Members returns the names of the members that have files in a directory.
func Members(dir string) ([]string, error) {
	all, err := list(dir, "")
	var out []string
	for _, m := range all {
		out = append(out, m.name)
	}
	return out, err
}

// HasMember reports whether names include the member with an address.
func HasMember(names []string, address string) bool {
	return slices.Contains(names, strings.TrimSuffix(logging.FileName(address), ".log"))
}
