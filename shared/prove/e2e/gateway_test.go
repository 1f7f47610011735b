package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// webCase is a request over HTTP/1.1.
type webCase struct{ method, path, body string }

// gatewayCases are good and bad requests to the JSON gateway and to the pages for health checks.
var gatewayCases = []webCase{
	{"POST", "/v3/kv/put", `{"key":"Zm9v","value":"YmFy"}`},
	{"POST", "/v3/kv/put", `{"key":"Zm9v","value":"YmF6","prev_kv":true}`},
	{"POST", "/v3/kv/put", `{"key":"Zm9v","prevKv":true,"ignoreValue":true}`},
	{"POST", "/v3/kv/put", `{"value":"YmFy"}`},
	{"POST", "/v3/kv/put", `{"key":"Zm9v","lease":"12345"}`},
	{"POST", "/v3/kv/put", `{"key":"not base64!"}`},
	{"POST", "/v3/kv/put", `{"nothing":1}`},
	{"POST", "/v3/kv/put", `{`},
	{"POST", "/v3/kv/put", ``},
	{"GET", "/v3/kv/put", ``},
	{"POST", "/v3/kv/range", `{"key":"Zm9v"}`},
	{"POST", "/v3/kv/range", `{"key":"AA==","range_end":"AA==","keys_only":true,"sort_order":"DESCEND","sort_target":"MOD"}`},
	{"POST", "/v3/kv/range", `{"key":"Zm9v","revision":"100"}`},
	{"POST", "/v3/kv/range", `{"key":"Zm9v","sort_order":"SIDEWAYS"}`},
	{"POST", "/v3/kv/range", `{"key":"Zm9v","count_only":true,"serializable":true}`},
	{"POST", "/v3/kv/range_stream", `{"key":"AA==","range_end":"AA=="}`},
	{"POST", "/v3/kv/txn", `{"compare":[{"result":"EQUAL","target":"VALUE","key":"Zm9v","value":"YmF6"}],"success":[{"requestPut":{"key":"Zm9v","value":"MQ=="}},{"request_range":{"key":"Zm9v"}}],"failure":[]}`},
	{"POST", "/v3/kv/txn", `{"success":[{"requestPut":{"key":"YQ=="}},{"requestPut":{"key":"YQ=="}}]}`},
	{"POST", "/v3/kv/txn", `{}`},
	{"POST", "/v3/kv/deleterange", `{"key":"Zm9v","prev_kv":true}`},
	{"POST", "/v3/kv/deleterange", `{}`},
	{"POST", "/v3/kv/compaction", `{"revision":"3","physical":true}`},
	{"POST", "/v3/kv/compaction", `{"revision":"3"}`},
	{"POST", "/v3/kv/range", `{"key":"Zm9v","revision":"2"}`},
	{"POST", "/v3/lease/grant", `{"TTL":"600","ID":"77"}`},
	{"POST", "/v3/lease/grant", `{"TTL":600,"ID":77}`},
	{"POST", "/v3/lease/leases", `{}`},
	{"POST", "/v3/kv/lease/leases", `{}`},
	{"POST", "/v3/lease/keepalive", `{"ID":"77"}`},
	{"POST", "/v3/lease/revoke", `{"ID":"77"}`},
	{"POST", "/v3/kv/lease/revoke", `{"ID":"77"}`},
	{"POST", "/v3/lease/timetolive", `{"ID":"77","keys":true}`},
	{"POST", "/v3/watch", `{"create_request":{"key":"Zm9v","start_revision":"1"}}`},
	{"POST", "/v3/auth/user/add", `{"name":"u","password":"p"}`},
	{"POST", "/v3/auth/user/add", `{"name":"u","password":"p"}`},
	{"POST", "/v3/auth/user/get", `{"name":"u"}`},
	{"POST", "/v3/auth/user/list", `{}`},
	{"POST", "/v3/auth/role/add", `{"name":"r"}`},
	{"POST", "/v3/auth/role/grant", `{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}`},
	{"POST", "/v3/auth/role/get", `{"role":"r"}`},
	{"POST", "/v3/auth/role/list", `{}`},
	{"POST", "/v3/auth/role/revoke", `{"role":"r","key":"YQ==","range_end":"Yg=="}`},
	{"POST", "/v3/auth/user/grant", `{"user":"u","role":"r"}`},
	{"POST", "/v3/auth/user/revoke", `{"name":"u","role":"r"}`},
	{"POST", "/v3/auth/user/changepw", `{"name":"u","password":"q"}`},
	{"POST", "/v3/auth/user/delete", `{"name":"u"}`},
	{"POST", "/v3/auth/role/delete", `{"role":"r"}`},
	{"POST", "/v3/auth/enable", `{}`},
	{"POST", "/v3/auth/disable", `{}`},
	{"POST", "/v3/auth/status", `{}`},
	{"POST", "/v3/auth/authenticate", `{"name":"a","password":"b"}`},
	{"POST", "/v3/maintenance/alarm", `{"action":"GET"}`},
	{"POST", "/v3/maintenance/hashkv", `{}`},
	{"POST", "/v3/maintenance/hash", `{"revision":"100"}`},
	{"POST", "/v3/maintenance/defragment", `{}`},
	{"POST", "/v3/maintenance/downgrade", `{"action":"VALIDATE","version":"4.0.0"}`},
	{"POST", "/v3/lock/lock", `{"name":"bG9jaw==","lease":"999"}`},
	{"POST", "/v3/lock/unlock", `{"key":"bm9uZQ=="}`},
	{"POST", "/v3/election/leader", `{"name":"ZQ=="}`},
	{"POST", "/v3/election/campaign", `{"name":"ZQ==","lease":"999"}`},
	{"POST", "/v3/nothing", `{}`},
	{"POST", "/v3beta/kv/range", `{"key":"Zm9v"}`},
	{"POST", "/v3alpha/kv/range", `{"key":"Zm9v"}`},
	{"GET", "/health", ""},
	{"GET", "/health?serializable=true", ""},
	{"HEAD", "/health", ""},
	{"POST", "/health", ""},
	{"GET", "/livez", ""},
	{"GET", "/livez?verbose=true", ""},
	{"GET", "/livez/serializable_read", ""},
	{"GET", "/livez/none", ""},
	{"GET", "/readyz", ""},
	{"GET", "/readyz/data_corruption", ""},
	{"GET", "/readyz?exclude=none", ""},
	{"GET", "/version", ""},
	{"POST", "/version", ""},
	{"GET", "/", ""},
	{"GET", "/v2/keys", ""},
}

// webAnswer is the answer that a client sees, with the headers that describe the body.
type webAnswer struct {
	code int
	kind string
	body any
}

// send sends the request, and removes the names of servers from the answer. A watch does not end,
// so send returns its first two objects.
func (k webCase) send(t *testing.T, web *http.Client, base string) webAnswer {
	t.Helper()
	req := must(http.NewRequestWithContext(testContext(t), k.method, base+k.path, strings.NewReader(k.body)))(t)
	resp, err := web.Do(req)
	if err != nil {
		t.Fatalf("%v: %v", k, err)
	}
	defer resp.Body.Close()
	a := webAnswer{code: resp.StatusCode, kind: resp.Header.Get("Content-Type")}
	if !strings.Contains(a.kind, "json") {
		a.body = string(must(io.ReadAll(resp.Body))(t))
		return a
	}
	var objects []any
	for dec := json.NewDecoder(resp.Body); ; {
		var o any
		if err := dec.Decode(&o); err != nil {
			break
		}
		objects = append(objects, o)
		if k.path == "/v3/watch" && len(objects) == 2 {
			break
		}
	}
	withoutNames(objects)
	a.body = objects
	return a
}

// withoutNames removes the ids from headers. It also removes the storage version, which an etcd
// raises some time after its first start.
func withoutNames(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			withoutNames(e)
		}
	case map[string]any:
		for _, key := range []string{"cluster_id", "member_id", "raft_term", "storage"} {
			delete(v, key)
		}
		if hash, ok := v["hash"]; ok && v["hash_revision"] == nil && hash != nil {
			delete(v, "hash") // the hash of the whole file
		}
		if text, ok := v["message"].(string); ok {
			// The protobuf library writes one or two blanks at random.
			v["message"] = strings.ReplaceAll(text, "\u00a0", " ")
		}
		for _, e := range v {
			withoutNames(e)
		}
	}
}

// TestGatewaySameAsEtcd: the JSON gateway and the pages for health checks give the same status
// codes, content types and fields as etcd.
func TestGatewaySameAsEtcd(t *testing.T) {
	stop, address := realEtcd(t, filepath.Join(t.TempDir(), "etcd"))
	defer stop()
	c := start(t)
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i, k := range gatewayCases {
		got, want := k.send(t, web, "http://"+c.client), k.send(t, web, "http://"+address)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("request %d: %s\ndynast: %s\netcd:   %s", i, k, got, want)
		}
	}
}

func (k webCase) String() string { return fmt.Sprintf("%s %s %s", k.method, k.path, k.body) }

func (a webAnswer) String() string {
	body, err := json.Marshal(a.body)
	return fmt.Sprintf("%d %s %s %v", a.code, a.kind, body, err)
}
