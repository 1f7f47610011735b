package config

import (
	"strings"
	"testing"
)

// The example in config.hcl is valid without its comment signs, and it shows every field.
func TestExampleService(t *testing.T) {
	_, commented, ok := strings.Cut(string(builtIn(t)), "# service \"web\" {\n")
	if !ok {
		t.Fatal("config.hcl has no example of a service")
	}
	var b strings.Builder
	for line := range strings.Lines("# service \"web\" {\n" + commented) {
		b.WriteString(strings.TrimPrefix(line, "# "))
	}
	if c := mustParse(t, b.String()); len(c.Services) != 4 {
		t.Errorf("%d services", len(c.Services))
	}
	for _, f := range serviceFields {
		if !strings.Contains(commented, leaf(f.path)) {
			t.Errorf("the example does not explain %s", f.path)
		}
	}
}

// FuzzServices: service blocks are refused, or they are valid and mean the same in a worker.
func FuzzServices(f *testing.F) {
	defaults := builtIn(f)
	f.Add(fullService)
	for _, tc := range refusals {
		if strings.Contains(tc.src, serviceBlock) {
			f.Add(tc.src)
		}
	}
	f.Fuzz(func(t *testing.T, src string) {
		c, err := Parse("own.hcl", []byte(src), defaults)
		if err != nil {
			return
		}
		d, err := Decode(c.Encode())
		if err != nil {
			t.Fatalf("accepted, but %v", err)
		}
		if string(d.Encode()) != string(c.Encode()) {
			t.Fatalf("got %s, want %s", d.Encode(), c.Encode())
		}
		if added, removed, changed := DiffServices(c.Services, d.Services); len(added)+len(removed)+len(changed) > 0 {
			t.Fatalf("a worker has others: %v %v %v", added, removed, changed)
		}
	})
}
