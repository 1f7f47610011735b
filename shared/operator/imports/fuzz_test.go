package imports

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/dynast-io/dynast/shared/prove/fuzzing"
)

// fuzzImport checks that a decoder refuses its input with a place in the file, or writes services
// that can be read again.
func fuzzImport(t *testing.T, kind Kind, name string, content []byte) {
	var out []byte
	var err error
	f := File{Name: name, Dir: testDir, Content: content}
	fuzzing.Bounded(t, len(content), 30_000, func() { out, err = Import([]File{f}, Options{Kind: kind}) })
	if err != nil {
		if !strings.HasPrefix(err.Error(), name+":") {
			t.Fatalf("the error does not name the file: %v", err)
		}
		return
	}
	services := decode(t, out)
	if len(services) == 0 {
		t.Fatalf("no service and no error for %q", content)
	}
	for service, d := range services {
		_, command := d["command"]
		if _, script := d["script"]; command == script {
			t.Fatalf("%s needs either command or script:\n%s", service, out)
		}
	}
	if !utf8.Valid(out) {
		t.Fatalf("the output is not text: %q", out)
	}
}

func seed(f *testing.F, patterns ...string) {
	for _, pattern := range patterns {
		names, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil || len(names) == 0 {
			f.Fatalf("no seeds in %s: %v", pattern, err)
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(content)
		}
	}
}

func FuzzProcfile(f *testing.F) {
	seed(f, "Procfile")
	f.Add([]byte("web: echo ${x} $${y} %{z} \"\r\tEOT"))
	f.Fuzz(func(t *testing.T, content []byte) { fuzzImport(t, Procfile, "Procfile", content) })
}

func FuzzSupervisord(f *testing.F) {
	seed(f, "supervisord/*.conf", "supervisord/conf.d/*.conf")
	f.Add([]byte("[program:a]\nnumprocs=2\ncommand=x \\%(process_num)03d\nenvironment=A=\"%(ENV_B)s\",C='d'"))
	f.Fuzz(func(t *testing.T, content []byte) { fuzzImport(t, Supervisord, "s.conf", content) })
}

func FuzzProcessCompose(f *testing.F) {
	seed(f, "process-compose.yaml")
	f.Add([]byte("processes: &a {b: {command: x, <<: *a}}"))
	f.Add([]byte("processes: {a: {command: \"\\0\"}}"))
	f.Fuzz(func(t *testing.T, content []byte) { fuzzImport(t, ProcessCompose, "p.yaml", content) })
}

func FuzzSystemd(f *testing.F) {
	seed(f, "systemd/*.service")
	f.Add([]byte("[Service]\nExecStart=/a \\x41\\u00e9\\;; $A ${B} $$ %i\nEnvironment=A=%h"))
	f.Fuzz(func(t *testing.T, content []byte) { fuzzImport(t, Systemd, "web@.service", content) })
}

// FuzzActivation: sockets and timers.
func FuzzActivation(f *testing.F) {
	seed(f, "systemd/*.socket", "systemd/*.timer")
	f.Add([]byte("[Timer]\nOnCalendar=Sat..Mon *-*-1,3..5/2 0/4:*/7:00\n[Socket]\nListenStream=[::1]:80"))
	service := File{Name: "x.service", Content: []byte("[Service]\nExecStart=/x")}
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, name := range []string{"x.socket", "x.timer"} {
			out, err := Import([]File{service, {Name: name, Content: content}}, Options{})
			if err == nil {
				decode(t, out)
			} else if !strings.HasPrefix(err.Error(), "x.") {
				t.Fatalf("the error does not name the file: %v", err)
			}
		}
	})
}

// FuzzText: every text reaches the reader of the output unchanged, in a value and in a script of
// several lines. HCL normalizes characters (NFC).
func FuzzText(f *testing.F) {
	for _, s := range []string{"$${x}", "$$${x", "%%{if}", "${", "a\nb${c}\n", "\nEOT\n", "\"\\", "é", "a\r\nb", "$$$$", "%", "\\u0041", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" || checkText(File{Content: []byte(text)}) != nil || strings.TrimRight(text, "\n") == "" {
			return
		}
		file := hclwrite.NewEmptyFile()
		o := &output{}
		s, err := o.add("x", place{})
		if err != nil {
			t.Fatal(err)
		}
		s.shell = text
		s.set("dir", text)
		s.env["A"] = text
		s.notes.add(text, text)
		if err := s.write(file.Body().AppendNewBlock("service", []string{s.name}).Body()); err != nil {
			t.Fatal(err)
		}
		out := hclwrite.Format(file.Bytes())
		d := decode(t, out)["x"]
		want := cty.NormalizeString(strings.TrimRight(text, "\n"))
		for name, got := range map[string]string{"script": d.text(t, "script"), "dir": d.text(t, "dir"), "env": d["env"].AsValueMap()["A"].AsString()} {
			if strings.TrimRight(got, "\n") != want {
				t.Errorf("%s: %q became %q in\n%s", name, text, got, out)
			}
		}
	})
}

// FuzzShellWord: splitting what shellLine joined gives the same words.
func FuzzShellWord(f *testing.F) {
	f.Add("a", "b c")
	f.Add("'", "\"\\$x")
	f.Add("", "*~#")
	f.Fuzz(func(t *testing.T, a, b string) {
		if checkText(File{Content: []byte(a + b)}) != nil || dynamic(a+b) {
			return
		}
		words, err := splitShlex(shellLine([]string{a, b}))
		if err != nil || !slices.Equal(words, []string{a, b}) {
			t.Errorf("%q %q became %q, %v", a, b, words, err)
		}
	})
}
