package imports

import (
	"strings"
)

type procfileLine struct {
	at            place
	name, command string
}

var procfilePattern = pattern(`^([A-Za-z0-9_-]+):\s*(.*)$`)

// procfileLines reads a Procfile. A line is NAME: COMMAND, empty, or a comment.
func procfileLines(f File) ([]procfileLine, error) {
	var lines []procfileLine
	for i, text := range strings.Split(string(f.Content), "\n") {
		at := place{f.Name, i + 1}
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		m := procfilePattern().FindStringSubmatch(text)
		if m == nil {
			return nil, at.errorf("this is not a line of a Procfile, want NAME: COMMAND")
		}
		if m[2] == "" {
			return nil, at.errorf("the program %q has no command", m[1])
		}
		lines = append(lines, procfileLine{at, m[1], m[2]})
	}
	return lines, nil
}

var portVariable = pattern(`\$\{?PORT\b`)

func (o *output) procfile(f File, opts Options) error {
	lines, err := procfileLines(f)
	if err != nil {
		return err
	}
	envFile, err := dotEnv(f, opts)
	if err != nil {
		return err
	}
	for _, l := range lines {
		s, err := o.add(l.name, l.at)
		if err != nil {
			return err
		}
		s.shell = script(l.command)
		s.set("restart", "always")
		if envFile != "" {
			s.set("env_file", envFile)
		}
		if portVariable().MatchString(l.command) {
			s.notes.add("PORT", `a Procfile runner sets this variable (foreman: 5000, 5100, ...). Add env = { PORT = "5000" }, or set it in the environment of dynast.`)
		}
	}
	if release := o.find("release"); release != nil {
		release.set("restart", "never")
		release.notes.add("release", "it runs once at each start, and the other services wait until it has succeeded. Delete the block and its name in after if it has to run at a deployment only.")
		for _, s := range o.services {
			if s != release {
				s.depend("after", release.name)
			}
		}
	}
	return nil
}

// dotEnv returns the name of the file .env beside f, which Procfile runners read, or nothing.
func dotEnv(f File, opts Options) (string, error) {
	if opts.Glob == nil {
		return "", nil
	}
	found, err := opts.Glob(f.Dir, ".env")
	if err != nil || len(found) == 0 {
		return "", err
	}
	return ".env", nil
}
