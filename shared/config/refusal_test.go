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
	{"a host joins without a token", "hosts { join = \"10.0.0.1:2380\" }"},
	{"a host at no address", "hosts { address = \"0.0.0.0:2380\" }"},
	{"a host with a strange name", "hosts { name = \"a b\" }"},
	{"too short an election", "hosts { election = \"200ms\" }"},
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
	{"service without a name", `service { command = ["a"] }`},
	{"service with two names", `service "a" "b" { command = ["a"] }`},
	{"service with a bad name", `service "../a" { command = ["a"] }`},
	{"service twice", "service \"a\" { command = [\"a\"] }\nservice \"a\" { command = [\"b\"] }"},
	{"service without a program", `service "a" { instances = 2 }`},
	{"service with two programs", "service \"a\" {\n  command = [\"a\"]\n  script = \"b\"\n}"},
	{"service: misspelled field", `service "a" { comand = ["a"] }`},
	{"service: misspelled block", "service \"a\" {\n  command = [\"a\"]\n  limit {\n    memory = \"1GiB\"\n  }\n}"},
	{"service: field in the wrong place", "service \"a\" {\n  command = [\"a\"]\n  memory = \"1GiB\"\n}"},
	{"service: command as a text", `service "a" { command = "a b" }`},
	{"service: variable in a script", `service "a" { script = "echo ${HOME}" }`},
	{"service: umask", "service \"a\" {\n  command = [\"a\"]\n  umask = \"0998\"\n}"},
	{"service: env", "service \"a\" {\n  command = [\"a\"]\n  env = { A = 1 }\n}"},
	{"service: env twice", "service \"a\" {\n  command = [\"a\"]\n  env = { A = \"1\", A = \"2\" }\n}"},
	{"service: env of dynast", "service \"a\" {\n  command = [\"a\"]\n  env = { INSTANCE = \"1\" }\n}"},
	{"service: too many instances", "service \"a\" {\n  command = [\"a\"]\n  instances = 1001\n}"},
	{"service: hosts", "service \"a\" {\n  command = [\"a\"]\n  hosts = \"two\"\n}"},
	{"service: hosts with a strange name", "service \"a\" {\n  command = [\"a\"]\n  hosts = [\"b c\"]\n}"},
	{"service: hosts twice", "service \"a\" {\n  command = [\"a\"]\n  hosts = [\"b\", \"b\"]\n}"},
	{"service: hosts as a number", "service \"a\" {\n  command = [\"a\"]\n  hosts = 1\n}"},
	{"service: hosts of none", "service \"a\" {\n  command = [\"a\"]\n  hosts = []\n}"},
	{"service: needs one on one host", "service \"a\" {\n  command = [\"a\"]\n  needs = [\"b\"]\n}\nservice \"b\" {\n  command = [\"b\"]\n  hosts = \"one\"\n}"},
	{"service: after one on fewer hosts", "service \"a\" {\n  command = [\"a\"]\n  hosts = [\"x\", \"y\"]\n  after = [\"b\"]\n}\nservice \"b\" {\n  command = [\"b\"]\n  hosts = [\"y\"]\n}"},
	{"service: restart", "service \"a\" {\n  command = [\"a\"]\n  restart = \"allways\"\n}"},
	{"service: listen without a name", "service \"a\" {\n  command = [\"a\"]\n  listen {}\n}"},
	{"service: listen without an address", "service \"a\" {\n  command = [\"a\"]\n  listen \"x\" {}\n}"},
	{"service: listen on a name", "service \"a\" {\n  command = [\"a\"]\n  listen \"x\" { address = \"localhost:80\" }\n}"},
	{"service: listen on the clients' address", "service \"a\" {\n  command = [\"a\"]\n  listen \"x\" { address = \"0.0.0.0:2379\" }\n}"},
	{"service: listen among the members' ports", "service \"a\" {\n  command = [\"a\"]\n  listen \"x\" { address = \"127.0.0.1:7410\" }\n}"},
	{"services with one address", "service \"a\" {\n  command = [\"a\"]\n  listen \"x\" { address = \"127.0.0.1:80\" }\n}\nservice \"b\" {\n  command = [\"a\"]\n  listen \"x\" { address = \"[::]:80\" }\n}"},
	{"service: needs itself", "service \"a\" {\n  command = [\"a\"]\n  needs = [\"a\"]\n}"},
	{"service: needs a missing one", "service \"web\" {\n  command = [\"a\"]\n  needs = [\"dbx\"]\n}\nservice \"db\" { command = [\"a\"] }"},
	{"services in a circle", "service \"web\" {\n  command = [\"a\"]\n  needs = [\"db\"]\n}\nservice \"db\" {\n  command = [\"a\"]\n  after = [\"web\"]\n}"},
	{"service: needs a task", "service \"a\" {\n  command = [\"a\"]\n  needs = [\"t\"]\n}\nservice \"t\" {\n  command = [\"a\"]\n  schedule = \"@hourly\"\n}"},
	{"service: a task that always restarts", "service \"a\" {\n  command = [\"a\"]\n  schedule = \"@hourly\"\n  restart = \"always\"\n}"},
	{"service: schedule", "service \"a\" {\n  command = [\"a\"]\n  schedule = \"* * *\"\n}"},
	{"service: check of no kind", "service \"a\" {\n  command = [\"a\"]\n  ready { timeout = \"2s\" }\n}"},
	{"service: check of two kinds", "service \"a\" {\n  command = [\"a\"]\n  ready {\n    tcp = \"a:1\"\n    notify = true\n  }\n}"},
	{"service: alive after a delay", "service \"a\" {\n  command = [\"a\"]\n  alive { delay = \"2s\" }\n}"},
	{"service: notify = false", "service \"a\" {\n  command = [\"a\"]\n  ready { notify = false }\n}"},
	{"service: URL", "service \"a\" {\n  command = [\"a\"]\n  ready { http = \"localhost:80\" }\n}"},
	{"service: signal", "service \"a\" {\n  command = [\"a\"]\n  stop { signal = \"TREM\" }\n}"},
	{"service: stop timeout", "service \"web\" {\n  command = [\"a\"]\n  stop { timeout = 10 }\n}"},
	{"service: reload of nothing", "service \"a\" {\n  command = [\"a\"]\n  reload {}\n}"},
	{"service: reload in two ways", "service \"a\" {\n  command = [\"a\"]\n  reload {\n    signal = \"HUP\"\n    exec = [\"a\"]\n  }\n}"},
	{"service: backoff", "service \"a\" {\n  command = [\"a\"]\n  backoff { first = \"1m\" }\n}"},
	{"service: cpu", "service \"a\" {\n  command = [\"a\"]\n  limits { cpu = 0.0001 }\n}"},
	{"service: capability", "service \"a\" {\n  command = [\"a\"]\n  security { drop_capabilities = [\"NET_ROW\"] }\n}"},
	{"services: all errors at once", "service \"a\" {\n  comand = [\"a\"]\n  umask = \"9\"\n}\nservice \"b\" { stop { timeout = 1 } }"},
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
