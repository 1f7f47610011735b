package logview

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dynast-io/dynast/shared/observe/logging"
)

// rotated matches the name of a closed file: the member's name and the time of closing.
var rotated = regexp.MustCompile(`^(.+)-(\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}\.\d{3})\.log$`)

// memberFiles are the files of one member.
type memberFiles struct {
	name    string   // 127.0.0.1_7401
	closed  []string // the oldest first
	current string   // it may not exist
}

// list returns the files of all members in a directory, or of the members with some addresses.
func list(dir string, addresses []string) ([]memberFiles, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no log directory %s, nothing was logged there yet: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read log directory: %w", err)
	}
	closed := map[string][]string{}
	for _, e := range entries {
		name := e.Name()
		if m := rotated.FindStringSubmatch(name); m != nil {
			closed[m[1]] = append(closed[m[1]], filepath.Join(dir, name))
		} else if member, ok := strings.CutSuffix(name, ".log"); ok && closed[member] == nil {
			closed[member] = nil
		}
	}
	var out []memberFiles
	for member, paths := range closed {
		if len(addresses) > 0 && !slices.ContainsFunc(addresses, func(a string) bool { return HasMember([]string{member}, a) }) {
			continue
		}
		slices.Sort(paths) // the names contain the time
		out = append(out, memberFiles{member, paths, filepath.Join(dir, member+".log")})
	}
	slices.SortFunc(out, func(a, b memberFiles) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// Members returns the names of the members that have files in a directory.
func Members(dir string) ([]string, error) {
	all, err := list(dir, nil)
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

// Instances returns the instances that have a directory in the directory of the services, in
// order: web/1, web/2, web/10. There are none if the directory does not exist.
func Instances(dir string) ([]string, error) {
	services, err := readDir(dir) // in the order of their names
	if err != nil {
		return nil, err
	}
	var out []string
	for _, service := range services {
		if !service.IsDir() {
			continue
		}
		entries, err := readDir(filepath.Join(dir, service.Name()))
		if err != nil {
			return nil, err
		}
		var numbers []int
		for _, e := range entries {
			// Ignore foreign names and names like "007".
			if n, err := strconv.Atoi(e.Name()); err == nil && n > 0 && strconv.Itoa(n) == e.Name() && e.IsDir() {
				numbers = append(numbers, n)
			}
		}
		slices.Sort(numbers)
		for _, n := range numbers {
			out = append(out, fmt.Sprintf("%s/%d", service.Name(), n))
		}
	}
	return out, nil
}

func readDir(dir string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for services: %w", err)
	}
	return entries, nil
}

// Selected reports whether names have an instance, or its service, or are empty.
func Selected(names []string, instance string) bool {
	return len(names) == 0 || slices.Contains(names, instance) || slices.Contains(names, Service(instance))
}

// Service returns the service of an instance.
func Service(instance string) string {
	name, _, _ := strings.Cut(instance, "/")
	return name
}
