package imports

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// compose is the configuration of process-compose.
type compose struct {
	out  *output
	file string
	// budget bounds how many fields are visited, because aliases can repeat them without end.
	budget int
	// plain switches off the expansion of variables.
	plain bool
	env   []field
	names map[string]bool
}

// field is an entry of a YAML mapping.
type field struct {
	key string
	at  place
	val *yaml.Node
}

func (f field) String() string { return f.key + "=" + flow(f.val) }

const (
	maxFields = 100_000
	maxMerges = 10
)

var yamlLine = pattern(`^yaml: (?:line ([0-9]+): )?`)

func (o *output) compose(f File) error {
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(f.Content))
	err := decoder.Decode(&doc)
	if err == nil {
		if again := decoder.Decode(new(yaml.Node)); !errors.Is(again, io.EOF) {
			return &Error{File: f.Name, Text: "the file has more than one YAML document, or text after the first one"}
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		m := yamlLine().FindStringSubmatch(err.Error())
		at := place{file: f.Name}
		if m != nil {
			at.line, _ = strconv.Atoi(m[1])
		}
		return at.errorf("not valid YAML: %s", yamlLine().ReplaceAllString(err.Error(), ""))
	}
	if len(doc.Content) == 0 {
		return &Error{File: f.Name, Text: "the file is empty"}
	}
	c := &compose{out: o, file: f.Name, budget: maxFields, names: map[string]bool{}}
	top, err := c.fields(doc.Content[0])
	if err != nil {
		return err
	}
	var processes []field
	for _, x := range top {
		switch {
		case x.key == "processes":
			if processes, err = c.fields(x.val); err != nil {
				return err
			}
		case x.key == "environment":
			if c.env, err = c.pairs(x.val); err != nil {
				return err
			}
		case x.key == "disable_env_expansion":
			if c.plain, err = c.boolean(x); err != nil {
				return err
			}
		case strings.HasPrefix(x.key, "x-"):
		case slices.Contains([]string{"version", "name", "is_strict", "ordered_shutdown"}, x.key):
			o.notes.add(x.String(), "not needed by dynast.")
		case x.key == "vars":
			o.notes.add(x.String(), "dynast has no templates. Replace {{ }} in the blocks, or use env.")
		case x.key == "shell":
			o.notes.add(x.String(), "dynast runs a script with /bin/sh -c. Use command if a program needs another shell.")
		case strings.HasPrefix(x.key, "log_"):
			o.notes.add(x.String(), outputText)
		default:
			o.notes.add(x.String(), "dynast has no counterpart.")
		}
	}
	for _, p := range processes {
		c.names[p.key] = true
	}
	for _, p := range processes {
		if err := c.process(p); err != nil {
			return err
		}
	}
	return nil
}

func (c *compose) at(n *yaml.Node) place { return place{c.file, n.Line} }

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// fields returns the entries of a mapping. The entries that "<<" merges come last, without those
// that are overridden.
func (c *compose) fields(n *yaml.Node) ([]field, error) { return c.merged(n, maxMerges) }

func (c *compose) merged(n *yaml.Node, depth int) ([]field, error) {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, c.at(n).errorf("want a mapping, got %s", flow(n))
	}
	if depth == 0 {
		return nil, c.at(n).errorf("merges are nested too deeply")
	}
	var own, inherited []field
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := resolve(n.Content[i]), resolve(n.Content[i+1])
		if c.budget--; c.budget < 0 {
			return nil, c.at(key).errorf("the file has more than %d fields, with aliases", maxFields)
		}
		if key.Tag == "!!merge" {
			sources := []*yaml.Node{val}
			if val.Kind == yaml.SequenceNode {
				sources = val.Content
			}
			for _, source := range sources {
				more, err := c.merged(source, depth-1)
				if err != nil {
					return nil, err
				}
				inherited = append(inherited, more...)
			}
			continue
		}
		if key.Kind != yaml.ScalarNode {
			return nil, c.at(key).errorf("want a name, got %s", flow(key))
		}
		if seen[key.Value] {
			return nil, c.at(key).errorf("the key %q is repeated", key.Value)
		}
		seen[key.Value] = true
		own = append(own, field{key.Value, c.at(key), val})
	}
	for _, f := range inherited {
		if !seen[f.key] {
			seen[f.key] = true
			own = append(own, f)
		}
	}
	return own, nil
}

// flow writes a node in one line, for comments and errors.
func flow(n *yaml.Node) string {
	switch n.Kind {
	case yaml.AliasNode:
		return "*" + n.Value
	case yaml.SequenceNode:
		var items []string
		for _, x := range n.Content {
			items = append(items, flow(x))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case yaml.MappingNode:
		var items []string
		for i := 0; i+1 < len(n.Content); i += 2 {
			items = append(items, flow(n.Content[i])+": "+flow(n.Content[i+1]))
		}
		return "{" + strings.Join(items, ", ") + "}"
	}
	return n.Value
}

func (c *compose) text(f field) (string, error) {
	if f.val.Kind != yaml.ScalarNode {
		return "", f.at.errorf("%s: want a text, got %s", f.key, flow(f.val))
	}
	if strings.ContainsRune(f.val.Value, 0) {
		return "", f.at.errorf("%s contains a NUL byte", f.key)
	}
	return f.val.Value, nil
}

func (c *compose) number(f field) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(f.val.Value))
	if f.val.Kind != yaml.ScalarNode || err != nil || n < 0 || n > 1e9 {
		return 0, f.at.errorf("%s: want a whole number from 0, got %s", f.key, flow(f.val))
	}
	return n, nil
}

func (c *compose) boolean(f field) (bool, error) {
	var b bool
	if f.val.Kind != yaml.ScalarNode || f.val.Decode(&b) != nil {
		return false, f.at.errorf("%s: want true or false, got %s", f.key, flow(f.val))
	}
	return b, nil
}

func (c *compose) list(f field) ([]string, error) {
	if f.val.Kind == yaml.ScalarNode {
		one, err := c.text(f)
		return []string{one}, err
	}
	if f.val.Kind != yaml.SequenceNode {
		return nil, f.at.errorf("%s: want a list, got %s", f.key, flow(f.val))
	}
	var items []string
	for _, n := range f.val.Content {
		if c.budget--; c.budget < 0 {
			return nil, f.at.errorf("the file has more than %d fields, with aliases", maxFields)
		}
		item, err := c.text(field{f.key, c.at(n), resolve(n)})
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// pairs reads an environment: a list of NAME=VALUE, or a mapping.
func (c *compose) pairs(n *yaml.Node) ([]field, error) {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		return c.fields(n)
	}
	var pairs []field
	for _, item := range n.Content {
		item = resolve(item)
		name, value, ok := strings.Cut(item.Value, "=")
		if item.Kind != yaml.ScalarNode || !ok || name == "" {
			return nil, c.at(item).errorf("environment: want NAME=VALUE, got %s", flow(item))
		}
		if c.budget--; c.budget < 0 {
			return nil, c.at(item).errorf("the file has more than %d fields, with aliases", maxFields)
		}
		pairs = append(pairs, field{name, c.at(item), &yaml.Node{Kind: yaml.ScalarNode, Value: value, Line: item.Line}})
	}
	return pairs, nil
}

var variable = pattern(`\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)((?::?[-?+=][^}]*)?)\}|([A-Za-z_][A-Za-z0-9_]*))`)

// expand marks the variables that process-compose expands when it reads the file.
func (c *compose) expand(text string) string {
	if c.plain {
		return text
	}
	return variable().ReplaceAllStringFunc(text, func(found string) string {
		m := variable().FindStringSubmatch(found)
		if found == "$$" {
			return "$"
		}
		return expression("${" + m[1] + m[3] + m[2] + "}")
	})
}

// command prepares a shell command. A variable stays as it is, because the shell expands it.
func (c *compose) command(text string) string {
	if !c.plain {
		text = strings.ReplaceAll(text, "$$", "$")
	}
	return script(text)
}

func (c *compose) process(p field) error {
	fields, err := c.fields(p.val)
	if err != nil {
		return err
	}
	s, err := c.out.add(p.key, p.at)
	if err != nil {
		return err
	}
	x := &composeProcess{compose: c, service: s}
	// process-compose does not restart a process by default.
	s.set("restart", "never")
	if err := x.environment(c.env); err != nil {
		return err
	}
	for _, f := range fields {
		if err := x.field(f); err != nil {
			return err
		}
	}
	if s.shell == "" && len(s.commands) == 0 {
		return p.at.errorf("the process %q has no command", p.key)
	}
	return nil
}

// composeProcess converts one process.
type composeProcess struct {
	*compose
	*service
}

var composeTexts = map[string]string{
	"is_foreground":          terminalText,
	"is_tty":                 terminalText,
	"is_interactive":         terminalText,
	"is_elevated":            "dynast does not run programs through sudo. Set user.",
	"namespace":              "dynast has no namespaces. Put it in front of the name of the service if two names would be equal.",
	"log_location":           outputText,
	"ready_log_line":         "dynast does not read the output of a program. Use ready { } with http, exec, tcp, grpc or notify.",
	"description":            "",
	"disable_ansi_colors":    "not needed by dynast.",
	"disable_dot_env":        "not needed. dynast reads a file only if env_file names it.",
	"vars":                   "dynast has no templates. Replace {{ }} in the command, or use env.",
	"launch_timeout_seconds": "not needed. dynast follows the main process.",
	"shutdown":               "",
}

const terminalText = "dynast gives no terminal to a program."

func (x *composeProcess) field(f field) error {
	if text := composeTexts[f.key]; text != "" {
		x.notes.add(f.String(), text)
		return nil
	}
	switch f.key {
	case "command", "working_dir", "description", "is_daemon", "disabled", "replicas", "env_file":
		return x.simple(f)
	case "entrypoint":
		words, err := x.list(f)
		if err != nil || len(words) == 0 {
			return errors.Join(err, emptyList(f, words))
		}
		x.commands = [][]string{words}
	case "environment":
		pairs, err := x.pairs(f.val)
		if err != nil {
			return err
		}
		return x.environment(pairs)
	case "depends_on":
		return x.dependsOn(f)
	case "readiness_probe":
		return x.probe(f, "ready")
	case "liveness_probe":
		return x.probe(f, "alive")
	case "availability":
		return x.each(f, x.availability)
	case "shutdown":
		return x.each(f, x.shutdown)
	case "schedule":
		return x.schedule(f)
	case "log_configuration":
		return x.each(f, x.logs)
	default:
		x.notes.add(f.String(), "dynast has no counterpart.")
	}
	return nil
}

func emptyList(f field, words []string) error {
	if words == nil {
		return nil
	}
	return f.at.errorf("%s: the list is empty", f.key)
}

// each calls do for the entries of a mapping. Comments name them PARENT.KEY.
func (x *composeProcess) each(f field, do func(name string, f field) error) error {
	fields, err := x.fields(f.val)
	if err != nil {
		return err
	}
	for _, inner := range fields {
		if err := do(f.key+"."+inner.key, inner); err != nil {
			return err
		}
	}
	return nil
}

func (x *composeProcess) simple(f field) error {
	switch f.key {
	case "is_daemon", "disabled":
		on, err := x.boolean(f)
		if err != nil {
			return err
		}
		switch {
		case !on:
			x.notes.add(f.String(), "not needed. This is the default.")
		case f.key == "disabled":
			x.disable(f.String())
		default:
			x.notes.add(f.String(), "dynast follows the process that it starts. Run the program in the foreground, and stop it with a signal.")
		}
		return nil
	case "replicas":
		n, err := x.number(f)
		if err == nil {
			x.set("instances", n)
		}
		return err
	}
	text, err := x.text(f)
	if err != nil {
		if f.key == "env_file" && f.val.Kind == yaml.SequenceNode {
			return x.envFiles(f)
		}
		return err
	}
	switch f.key {
	case "command":
		x.shell = x.command(text)
		if strings.Contains(text, "PC_REPLICA_NUM") || strings.Contains(text, "PC_PROC_NAME") {
			x.notes.add("PC_REPLICA_NUM, PC_PROC_NAME", "dynast sets INSTANCE, which counts from 1, and SERVICE instead.")
		}
		if strings.Contains(text, "{{") {
			x.notes.add("{{ }}", "dynast has no templates. Replace them in the script, or use env.")
		}
	case "working_dir":
		x.setDir(x.expand(text))
	case "env_file":
		x.setText("env_file", x.expand(text), f.key, text)
	case "description":
		x.notes.add(f.key, text)
	}
	return nil
}

func (x *composeProcess) envFiles(f field) error {
	files, err := x.list(f)
	if err != nil {
		return err
	}
	for i, name := range files {
		if i == 0 {
			x.setText("env_file", x.expand(name), f.key, name)
		} else {
			x.notes.add("env_file="+name, "dynast reads one file. Put the variables into one.")
		}
	}
	return nil
}

func (x *composeProcess) environment(pairs []field) error {
	for _, p := range pairs {
		value, err := x.text(p)
		if err != nil {
			return err
		}
		value = x.expand(value)
		if dynamic(value) && !environmentName().MatchString(p.key) {
			return p.at.errorf("environment: %q is not a name that a shell can set", p.key)
		}
		x.setEnv(p.key, value)
	}
	return nil
}

func (x *composeProcess) dependsOn(f field) error {
	fields, err := x.fields(f.val)
	if err != nil {
		return err
	}
	for _, dep := range fields {
		inner, err := x.fields(dep.val)
		if err != nil {
			return err
		}
		condition := "process_started"
		for _, i := range inner {
			if i.key != "condition" {
				x.notes.add("depends_on."+dep.key+"."+i.String(), "dynast has no counterpart.")
				continue
			}
			if condition, err = x.text(i); err != nil {
				return err
			}
		}
		if err := x.condition(dep, condition); err != nil {
			return err
		}
	}
	return nil
}

func (x *composeProcess) condition(dep field, condition string) error {
	about := "depends_on." + dep.key + "=" + condition
	list, text := "needs", ""
	switch condition {
	case "process_healthy":
	case "process_completed_successfully":
		list = "after"
	case "process_completed":
		list, text = "after", "dynast waits until the process has succeeded. Let its script end with exit 0 if a failure does not matter."
	case "process_started":
		text = "dynast waits until the service is ready, which is at once if it has no ready { }."
	case "process_log_ready":
		text = "dynast does not read the output of a program. Give the service that is needed a ready { }."
	default:
		return dep.at.errorf("depends_on: unknown condition %q", condition)
	}
	if text != "" {
		x.notes.add(about, text)
	}
	if !x.names[dep.key] {
		x.notes.add(about, "this process is not in the file. Add its name to "+list+" when it is a service.")
		return nil
	}
	x.depend(list, validName(dep.key))
	return nil
}

// probe converts a check. block is ready or alive.
func (x *composeProcess) probe(f field, block string) error {
	// These are the defaults of process-compose.
	interval, timeout, threshold := 10*time.Second, time.Second, 3
	err := x.each(f, func(name string, p field) error {
		switch p.key {
		case "http_get":
			return x.httpGet(p, name, block)
		case "exec":
			return x.each(p, func(_ string, e field) error {
				if e.key != "command" {
					x.notes.add(name+"."+e.String(), "write it into the command of the check.")
					return nil
				}
				command, err := x.text(e)
				x.set(block+".exec", []string{"/bin/sh", "-c", x.command(command)})
				return err
			})
		case "period_seconds", "timeout_seconds", "failure_threshold":
			n, err := x.number(p)
			d, _ := seconds(max(n, 1))
			switch p.key {
			case "period_seconds":
				interval = d
			case "timeout_seconds":
				timeout = d
			default:
				threshold = max(n, 1)
			}
			return err
		case "initial_delay_seconds":
			x.notes.add(name+"="+flow(p.val), "not needed. A check that fails before the program is ready has no consequence.")
		case "success_threshold":
			x.notes.add(name+"="+flow(p.val), "dynast needs one success.")
		default:
			x.notes.add(name+"="+flow(p.val), "dynast has no counterpart.")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if x.attrs[block+".http"] == nil && x.attrs[block+".exec"] == nil {
		return f.at.errorf("%s: want http_get or exec", f.key)
	}
	x.set(block+".interval", interval)
	x.set(block+".timeout", timeout)
	if block == "alive" {
		x.set("alive.threshold", threshold)
	} else if threshold != 3 {
		x.notes.add(fmt.Sprintf("%s.failure_threshold=%d", f.key, threshold), "dynast goes on checking until the program is ready.")
	}
	return nil
}

func (x *composeProcess) httpGet(f field, name, block string) error {
	url := map[string]string{"scheme": "http", "host": "127.0.0.1", "port": "", "path": "/"}
	err := x.each(f, func(_ string, p field) error {
		if _, ok := url[p.key]; !ok {
			x.notes.add(name+"."+p.String(), "dynast sends a plain GET and takes every status from 200 to 399 for a success. Use exec with curl if that is not enough.")
			return nil
		}
		value, err := x.text(p)
		value = x.expand(value)
		if dynamic(value) {
			return p.at.errorf("%s.%s=%s depends on the environment: write the value into the file and import it again", name, p.key, p.val.Value)
		}
		url[p.key] = value
		return err
	})
	if err != nil {
		return err
	}
	host := url["host"]
	if url["port"] != "" {
		host += ":" + url["port"]
	}
	x.set(block+".http", strings.ToLower(url["scheme"])+"://"+host+"/"+strings.TrimLeft(url["path"], "/"))
	return nil
}

func (x *composeProcess) availability(name string, f field) error {
	switch f.key {
	case "restart":
		policy, err := x.text(f)
		switch policy {
		case "no":
			x.set("restart", "never")
		case "on_failure":
			x.set("restart", "on-failure")
		case "always":
			x.set("restart", "always")
		case "exit_on_failure":
			x.notes.add(name+"="+policy, "dynast does not stop everything when one program fails. The state of the service becomes failed.")
		default:
			return errors.Join(err, f.at.errorf("%s: unknown policy %s", name, flow(f.val)))
		}
		return err
	case "backoff_seconds":
		n, err := x.number(f)
		if d, _ := seconds(n); n > 0 {
			x.set("backoff.first", d)
			x.set("backoff.max", d)
		} else {
			x.notes.add(name+"=0", "not needed. The first restart has no delay.")
		}
		return err
	case "max_restarts":
		n, err := x.number(f)
		if n > 0 {
			n++
		}
		x.set("backoff.limit", n)
		return err
	}
	x.notes.add(name+"="+flow(f.val), "dynast does not stop everything when one program ends.")
	return nil
}

func (x *composeProcess) shutdown(name string, f field) error {
	switch f.key {
	case "signal":
		text, err := x.text(f)
		if err != nil {
			return err
		}
		sig, err := signal(text)
		if err != nil {
			return f.at.errorf("%s: %v", name, err)
		}
		x.setSignal("stop.signal", sig, name+"="+text)
	case "timeout_seconds":
		n, err := x.number(f)
		if d, _ := seconds(n); n > 0 {
			x.set("stop.timeout", d)
		} else {
			x.notes.add(name+"=0", "dynast keeps the default of stop { timeout }.")
		}
		return err
	case "command":
		x.notes.add(name+"="+flow(f.val), "dynast stops a program with a signal. Let the program do this when it gets the signal.")
	case "parent_only":
		x.notes.add(name+"="+flow(f.val), "dynast sends the stop signal to the main process only, and kills the whole process tree at the end.")
	default:
		x.notes.add(name+"="+flow(f.val), "dynast has no counterpart.")
	}
	return nil
}

func (x *composeProcess) schedule(f field) error {
	if f.val.Kind == yaml.ScalarNode {
		return x.scheduleField("schedule", field{"cron", f.at, f.val})
	}
	return x.each(f, x.scheduleField)
}

func (x *composeProcess) scheduleField(name string, f field) error {
	expr, ok := "", false
	switch f.key {
	case "cron":
		text, err := x.text(f)
		if err != nil {
			return err
		}
		expr, ok = cron(text)
	case "interval":
		d, err := time.ParseDuration(f.val.Value)
		if err != nil {
			return f.at.errorf("%s: %q is not a duration", name, f.val.Value)
		}
		expr, ok = every(d)
	default:
		x.notes.add(name+"="+flow(f.val), "dynast has no counterpart. A run that would overlap is skipped.")
		return nil
	}
	if !ok {
		x.notes.add(name+"="+flow(f.val), "this is not a cron expression with five fields. Write schedule by hand; until then the program runs at each start.")
		return nil
	}
	x.set("schedule", expr)
	return nil
}

func (x *composeProcess) logs(name string, f field) error {
	if f.key != "rotation" {
		x.notes.add(name+"="+flow(f.val), outputText)
		return nil
	}
	return x.each(f, func(_ string, r field) error {
		if r.key != "max_size_mb" && r.key != "max_backups" {
			x.notes.add(name+"."+r.String(), "dynast bounds the output by size only.")
			return nil
		}
		n, err := x.number(r)
		if r.key == "max_backups" {
			x.set("log.max_backups", n)
		} else if n > 0 {
			x.set("log.max_size", sizeText(int64(n)<<20))
		}
		return err
	})
}
