package config

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/dynast-io/dynast/shared/prove/fuzzing"
)

// FuzzDecodeWorkerConfig: the configuration that a leader passes to a worker is accepted as a
// whole or refused.
func FuzzDecodeWorkerConfig(f *testing.F) {
	c, err := Load("", builtIn(f))
	if err != nil {
		f.Fatal(err)
	}
	whole := c.Encode()
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(bytes.Replace(whole, []byte(`"followers":"2"`), []byte(`"followers":"-2"`), 1))
	f.Add(append(bytes.Clone(whole), '{'))
	f.Add([]byte(`{"followers":"2","followers":"3"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c *Config
		var err error
		fuzzing.Bounded(t, len(b), 600, func() { c, err = Decode(b) })
		if err != nil {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "decode configuration") {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		again, err := Decode(c.Encode())
		if err != nil || !bytes.Equal(again.Encode(), c.Encode()) {
			t.Fatalf("%s became %s, %v", c.Encode(), again.Encode(), err)
		}
	})
}

// FuzzFlags: any text for any flag is accepted and means the same after it was written and read
// again, or it is refused with the flag's name.
func FuzzFlags(f *testing.F) {
	base, err := Load("", builtIn(f))
	if err != nil {
		f.Fatal(err)
	}
	for i := range fields {
		for _, text := range []string{"", "0", "-1", "64MiB", "9223372036854775807TiB", "1s", "1h1", "0s", "1e3s", "simple", "jwt,sign-method=RS256,priv-key=/k,ttl=5m",
			"127.0.0.1:2379", "[::1]:1", "[::ffff:1.2.3.4]:80", "7400-7499", "1-0", "text", "1000", "off", "/a/b", "~/x", "a\x00b", "\xff", "::1%lo"} {
			f.Add(i, text)
		}
	}
	f.Fuzz(func(t *testing.T, i int, text string) {
		if i < 0 || i >= len(fields) {
			return
		}
		c := base.clone()
		var err error
		fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
		fs.SetOutput(new(bytes.Buffer))
		flags := BindFlags(fs)
		name := FlagName(fields[i].path)
		fuzzing.Bounded(t, len(text), 64, func() { err = fs.Parse([]string{"--" + name + "=" + text}) })
		if err != nil {
			if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "want") {
				t.Fatalf("--%s=%q: %v", name, text, err)
			}
			return
		}
		if err := flags.Apply(c); err != nil {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), fields[i].path) && !strings.Contains(err.Error(), name) {
				t.Fatalf("--%s=%q: %v", name, text, err)
			}
			return
		}
		d, err := Decode(c.Encode())
		if err != nil {
			t.Fatalf("--%s=%q was taken, but: %v", name, text, err)
		}
		if a, b := fields[i].text(c), fields[i].text(d); a != b {
			t.Fatalf("--%s=%q is %q here and %q in a worker", name, text, a, b)
		}
	})
}

// FuzzBytes: a size means the same after it was written and read again.
func FuzzBytes(f *testing.F) {
	for _, s := range []string{"64MiB", "0B", "1", "", "MiB", "-1B", "8388608TiB", "8388607TiB", "1.5GiB", "1 MiB", "٣B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBytes(s)
		if err != nil {
			return
		}
		if again, err := ParseBytes(b.String()); err != nil || again != b || b < 0 {
			t.Errorf("%q is %d bytes, %q is %d, %v", s, b, b.String(), again, err)
		}
	})
}
