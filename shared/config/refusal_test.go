package config

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// refusals are files that must be refused. testdata/refusals.golden has them together with the
// error messages.
var refusals = []struct{ name, src string }{
	{"syntax", "followers = = 2"},
	{"dotted name", `heartbeat.timeout = "5s"`},
	{"unknown field", "folowers = 2"},
	{"unknown field, nothing near", "color = 2"},
	{"unknown field of a block", "heartbeat {\n  intervall = \"1s\"\n}"},
	{"field in the wrong place", `listen = "127.0.0.1:2379"`},
	{"unknown block", "hartbeat {}"},
	{"block in a block", "log {\n  rotate {}\n}"},
	{"block with a label", `client "a" { listen = "127.0.0.1:2379" }`},
	{"block with an equals sign", `client = { listen = "127.0.0.1:2379" }`},
	{"field as a block", "followers {}"},
	{"field twice", "followers = 2\nfollowers = 3"},
	{"block twice", "spawn { timeout = \"2s\" }\nspawn { timeout = \"3s\" }"},
	{"duration without a unit", "heartbeat { timeout = 5 }"},
	{"duration in quotes without a unit", `heartbeat { timeout = "5" }`},
	{"duration of zero without a unit", `heartbeat { timeout = "0" }`},
	{"duration in parsecs", `heartbeat { timeout = "5 parsecs" }`},
	{"duration with a space", `heartbeat { timeout = "5 s" }`},
	{"duration in days", `heartbeat { timeout = "1d" }`},
	{"duration of nonsense", `heartbeat { timeout = "soon" }`},
	{"duration too long", `heartbeat { timeout = "1h" }`},
	{"duration negative", `heartbeat { interval = "-1s" }`},
	{"size without a unit", "store { quota = 2147483648 }"},
	{"size in decimal units", `store { quota = "2GB" }`},
	{"size too large", `store { quota = "99999999TiB" }`},
	{"size with a fraction", `store { quota = "1.5GiB" }`},
	{"size too small", `store { quota = "10KiB" }`},
	{"size not a multiple", `log { max_size = "1500KiB" }`},
	{"number in quotes", `followers = "2"`},
	{"number not whole", "followers = 2.5"},
	{"number too large", "followers = 1e30"},
	{"number out of range", "followers = 33"},
	{"null", "followers = null"},
	{"list", "data_dir = [\"a\"]"},
	{"variable", "data_dir = HOME"},
	{"function", `data_dir = env("HOME")`},
	{"word", `log { level = "inof" }`},
	{"word, nothing near", `log { format = "xml" }`},
	{"empty path", `data_dir = ""`},
	{"path of another user", `data_dir = "~alice/data"`},
	{"host name", `client { listen = "localhost:2379" }`},
	{"no host", `client { listen = ":2379" }`},
	{"no port", `client { listen = "127.0.0.1" }`},
	{"port 0", `client { listen = "127.0.0.1:0" }`},
	{"port too large", `client { listen = "127.0.0.1:70000" }`},
	{"member on a name", `member { host = "localhost" }`},
	{"member on a wildcard", `member { host = "0.0.0.0" }`},
	{"one port", `member { ports = "7400" }`},
	{"ports backwards", `member { ports = "7499-7400" }`},
	{"ports out of range", `member { ports = "65000-66000" }`},
	{"timeout shorter than 3 intervals", "heartbeat {\n  interval = \"500ms\"\n  timeout  = \"1s\"\n}"},
	{"interval too long for the default timeout", `heartbeat { interval = "500ms" }`},
	{"min_sync above followers", "followers = 1\nreplication { min_sync = 2 }"},
	{"followers below the default min_sync", "followers = 0"},
	{"too few ports", `member { ports = "7400-7401" }`},
	{"dashboard without a port", `dashboard { listen = "127.0.0.1" }`},
	{"dashboard by a word that is none", `dashboard { listen = "no" }`},
	{"dashboard among the members' ports", `dashboard { listen = "127.0.0.1:7450" }`},
	{"dashboard at the clients' address", `dashboard { listen = "127.0.0.1:2379" }`},
	{"client port among the members' ports", `client { listen = "0.0.0.0:7450" }`},
	{"certificate without a key", `client { cert_file = "/a.crt" }`},
	{"key without a certificate", `client { key_file = "/a.key" }`},
	{"client CA without TLS", `client { client_ca_file = "/ca.crt" }`},
	{"retention of nothing", `store { auto_compaction = "0" }`},
	{"retention without quotes", `store { auto_compaction = 1000 }`},
	{"retention, a word", `store { auto_compaction = "always" }`},
	{"retention, empty", `store { auto_compaction = "" }`},
	{"retention negative", `store { auto_compaction = "-1h" }`},
	{"retention in days", `store { auto_compaction = "7d" }`},
	{"retention too short", `store { auto_compaction = "10ms" }`},
	{"retention too many", `store { auto_compaction = "9999999999999999999999" }`},
	{"everything at once", "followers = 99\nheartbeat { timeout = \"5\" }\nlevel = \"info\"\nlog { level = \"loud\" }"},
	{"long text", `data_dir = "~` + strings.Repeat("x", 200) + `"`},
}

func TestRefusals(t *testing.T) {
	defaults := builtIn(t)
	var b strings.Builder
	for _, tc := range refusals {
		_, err := Parse("own.hcl", []byte(tc.src), defaults)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", tc.name, err)
			continue
		}
		fmt.Fprintf(&b, "## %s\n%s\n->\n%v\n\n", tc.name, tc.src, err)
	}
	const golden = "testdata/refusals.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	gotCases, wantCases := strings.Split(b.String(), "## "), strings.Split(string(want), "## ")
	if len(gotCases) != len(wantCases) {
		t.Errorf("%d cases, the golden file has %d (rewrite it with -update)", len(gotCases), len(wantCases))
	}
	for i := range min(len(gotCases), len(wantCases)) {
		if gotCases[i] != wantCases[i] {
			t.Errorf("got\n%s\nwant\n%s", gotCases[i], wantCases[i])
		}
	}
}
