package imports

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// output is what Import collects: services, and comments that belong to none of them.
type output struct {
	services []*service
	notes    notes
}

// service is one block.
type service struct {
	name string
	at   place
	// attrs has the attributes by name, and by block.name for those in a block.
	attrs   map[string]any
	env     map[string]string
	listens []listen
	// before are lines of shell in front of the program.
	before []string
	// commands are programs that run one after the other; shell is a text for a shell.
	commands [][]string
	shell    string
	notes    notes
}

// listen is a block of that name.
type listen struct{ name, address string }

var invalidName = pattern(`[^A-Za-z0-9._-]+`)

// maxName is the length of the longest name of a service.
const maxName = 64

// validName returns the name that a service gets in config.hcl, or nothing.
func validName(name string) string {
	valid := strings.TrimLeft(invalidName().ReplaceAllString(name, "-"), "._-")
	return valid[:min(len(valid), maxName)]
}

// add creates a service. A name that config.hcl does not allow is changed, with a comment.
func (o *output) add(name string, at place) (*service, error) {
	valid := validName(name)
	if valid == "" {
		return nil, at.errorf("%q is no name for a service: it needs a letter or a digit", name)
	}
	if old := o.find(valid); old != nil {
		return nil, at.errorf("there are two services with the name %q; the first one is in %s", valid, old.at)
	}
	s := &service{name: valid, at: at, attrs: map[string]any{}, env: map[string]string{}}
	if valid != name {
		s.notes.add(fmt.Sprintf("name %q", name), "a name may contain only letters, digits, '.', '_' and '-', and has at most 64 bytes. It was changed.")
	}
	o.services = append(o.services, s)
	return s, nil
}

func (o *output) find(name string) *service {
	for _, s := range o.services {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (s *service) set(name string, value any) { s.attrs[name] = value }

// setText sets an attribute that cannot hold shell expressions. raw is the text of the input.
func (s *service) setText(name, value, directive, raw string) {
	if dynamic(value) {
		s.notes.add(directive+"="+raw, "this value depends on the environment. Write "+name+" by hand.")
		return
	}
	s.set(name, value)
}

// ownVariables are set by dynast, so config.hcl refuses them.
var ownVariables = []string{"SERVICE", "INSTANCE", "DYNAST_INSTANCE_TOKEN", "DYNAST_ENDPOINTS", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "DYNAST_HOST", "FENCE"}

// setEnv sets a variable of the environment. A shell sets it if it has to be computed.
func (s *service) setEnv(name, value string) {
	if slices.Contains(ownVariables, name) {
		s.notes.add("environment "+name, "dynast itself sets this variable. Give the program's one another name.")
		return
	}
	if dynamic(value) {
		delete(s.env, name)
		s.notes.add("environment "+name, "script computes this variable, so checks and reload commands do not see it.")
		s.before = append(s.before, "export "+name+"="+shellWord(value))
		return
	}
	s.env[name] = value
}

// setSignal sets an attribute that holds a signal.
func (s *service) setSignal(attr, name, directive string) {
	if strings.HasPrefix(name, "RT") {
		s.notes.add(directive, "dynast does not send real-time signals. Let the program end at another signal, and set that one.")
		return
	}
	s.set(attr, name)
}

// setDir sets the working directory.
func (s *service) setDir(dir string) {
	if dynamic(dir) {
		s.before = append(s.before, "cd "+shellWord(dir)+" || exit")
		return
	}
	s.set("dir", dir)
}

// depend adds a name to needs or after.
func (s *service) depend(list, name string) {
	names, _ := s.attrs[list].([]string)
	if name != s.name && !slices.Contains(names, name) {
		s.attrs[list] = append(names, name)
	}
}

// setProgram sets command or script.
func (s *service) setProgram() {
	static := len(s.commands) == 1 && len(s.before) == 0
	for _, words := range s.commands {
		for _, w := range words {
			static = static && !dynamic(w)
		}
	}
	if static {
		s.set("command", s.commands[0])
		return
	}
	lines := s.before
	if len(s.commands) > 1 {
		lines = append(lines, "set -e")
	}
	for i, words := range s.commands {
		line := shellLine(words)
		if i == len(s.commands)-1 {
			line = "exec " + line
		}
		lines = append(lines, line)
	}
	if s.shell != "" {
		lines = append(lines, s.shell)
	}
	if len(lines) > 0 {
		s.set("script", strings.Join(lines, "\n"))
	}
}

// note is a comment about one or several directives.
type note struct {
	about []string
	text  string
}

type notes []note

// add adds a comment. Directives with the same text share a comment.
func (n *notes) add(about, text string) {
	for i := range *n {
		if (*n)[i].text == text {
			if !slices.Contains((*n)[i].about, about) {
				(*n)[i].about = append((*n)[i].about, about)
			}
			return
		}
	}
	*n = append(*n, note{[]string{about}, text})
}

// layout is the order of the attributes in a block.
var layout = []string{
	"command", "script", "dir", "user", "group", "umask", "env", "env_file", "instances", "restart", "needs", "after", "schedule",
	"listen",
	"ready.http", "ready.exec", "ready.tcp", "ready.notify", "ready.delay", "ready.interval", "ready.timeout",
	"alive.http", "alive.exec", "alive.tcp", "alive.notify", "alive.interval", "alive.timeout", "alive.threshold",
	"stop.signal", "stop.timeout", "reload.signal", "reload.exec", "backoff.first", "backoff.max", "backoff.limit",
	"limits.memory", "limits.cpu", "limits.open_files", "limits.processes", "log.max_size", "log.max_backups",
	"security.no_new_privileges", "security.drop_capabilities",
}

func (o *output) render(files []File, kind Kind) ([]byte, error) {
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(f.Name))
	}
	if len(o.services) == 0 {
		return nil, &Error{File: files[0].Name, Text: fmt.Sprintf("there is no program in this file of the kind %s", kind)}
	}
	file := hclwrite.NewEmptyFile()
	body := file.Body()
	comment(body, fmt.Sprintf("Written by 'dynast import' from %s (%s). A comment in a block names what has no counterpart.", strings.Join(names, ", "), kind))
	comment(body, "A program without dir runs in the directory of the configuration file.")
	o.notes.write(body)
	for _, s := range o.services {
		body.AppendNewline()
		if err := s.write(body.AppendNewBlock("service", []string{s.name}).Body()); err != nil {
			return nil, err
		}
	}
	return hclwrite.Format(file.Bytes()), nil
}

func (s *service) write(body *hclwrite.Body) error {
	s.setProgram()
	if s.attrs["schedule"] != nil && s.attrs["restart"] == "always" {
		s.set("restart", "on-failure")
		s.notes.add("restart=always", "a task ends between its runs, so restart is on-failure.")
	}
	if len(s.env) > 0 {
		s.set("env", s.env)
	}
	s.notes.write(body)
	blocks := map[string]*hclwrite.Body{}
	for _, path := range layout {
		if path == "listen" {
			for _, l := range s.listens {
				body.AppendNewBlock("listen", []string{l.name}).Body().SetAttributeValue("address", cty.StringVal(l.address))
			}
			continue
		}
		value, ok := s.attrs[path]
		if !ok {
			continue
		}
		if strings.Contains(fmt.Sprint(value), "\x00") {
			return s.at.errorf("%s contains a NUL byte", path)
		}
		target := body
		block, name, nested := strings.Cut(path, ".")
		if !nested {
			name = path
		} else if target = blocks[block]; target == nil {
			target = body.AppendNewBlock(block, nil).Body()
			blocks[block] = target
		}
		if text, ok := value.(string); ok && heredocFits(text) {
			target.SetAttributeRaw(name, heredoc(text))
			continue
		}
		target.SetAttributeValue(name, ctyValue(value))
	}
	return nil
}

func ctyValue(value any) cty.Value {
	switch v := value.(type) {
	case string:
		return cty.StringVal(v)
	case time.Duration:
		return cty.StringVal(durationText(v))
	case int:
		return cty.NumberIntVal(int64(v))
	case float64:
		return cty.NumberFloatVal(v)
	case bool:
		return cty.BoolVal(v)
	case []string:
		var list []cty.Value
		for _, s := range v {
			list = append(list, cty.StringVal(s))
		}
		return cty.TupleVal(list)
	case map[string]string:
		attrs := map[string]cty.Value{}
		for k, s := range v {
			attrs[k] = cty.StringVal(s)
		}
		return cty.ObjectVal(attrs)
	}
	panic(fmt.Sprintf("imports: no value of HCL for %T", value))
}

const heredocEnd = "EOT"

// heredocFits reports whether a text is written over several lines. The text of a heredoc ends
// with a newline, which a shell ignores.
func heredocFits(text string) bool {
	if !strings.Contains(text, "\n") {
		return false
	}
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == heredocEnd {
			return false
		}
	}
	return strings.IndexFunc(text, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }) < 0
}

func heredoc(text string) hclwrite.Tokens {
	text = strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strings.TrimRight(text, "\n"))
	return hclwrite.Tokens{
		{Type: hclsyntax.TokenOHeredoc, Bytes: []byte("<<" + heredocEnd + "\n")},
		{Type: hclsyntax.TokenStringLit, Bytes: []byte(text + "\n")},
		{Type: hclsyntax.TokenCHeredoc, Bytes: []byte(heredocEnd)},
	}
}

func (n notes) write(body *hclwrite.Body) {
	for _, x := range n {
		comment(body, strings.Join(x.about, ", ")+": "+x.text)
	}
}

// commentWidth is where the lines of a comment are wrapped.
const commentWidth = 100

// comment writes a comment. Characters that could end it are escaped.
func comment(body *hclwrite.Body, text string) {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			quoted := fmt.Sprintf("%+q", r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	line := "#"
	flush := func() {
		body.AppendUnstructuredTokens(hclwrite.Tokens{{Type: hclsyntax.TokenComment, Bytes: []byte(line + "\n")}})
	}
	for _, word := range strings.Fields(b.String()) {
		if len(line) > 1 && len(line)+1+len(word) > commentWidth {
			flush()
			line = "#  "
		}
		line += " " + word
	}
	flush()
}
