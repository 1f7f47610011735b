package operate

import (
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/config"
)

func TestExposures(t *testing.T) {
	client := func(listen, cert, ca string) *config.Config {
		return &config.Config{Client: config.Client{Listen: listen, CertFile: cert, KeyFile: cert, ClientCAFile: ca}, Dashboard: config.Dashboard{Listen: config.Off}}
	}
	page := func(listen, token string) *config.Config {
		return &config.Config{Client: config.Client{Listen: "[::1]:2379"}, Dashboard: config.Dashboard{Listen: listen, TokenFile: token}}
	}
	for _, c := range []struct {
		cfg   *config.Config
		users bool
		want  []string
	}{
		{cfg: client("127.0.0.1:2379", "", "")},
		{cfg: client("0.0.0.0:2379", "", ""), want: []string{"without TLS", "change every key"}},
		{cfg: client("0.0.0.0:2379", "", ""), users: true, want: []string{"without TLS"}},
		{cfg: client("192.0.2.1:2379", "/c", ""), want: []string{"change every key"}},
		{cfg: client("192.0.2.1:2379", "/c", "/ca")},
		{cfg: client("[::]:2379", "/c", ""), users: true},
		{cfg: page(config.Off, "/t")},
		{cfg: page("127.0.0.1:2381", "/t")},
		{cfg: page("0.0.0.0:2381", ""), want: []string{"can look at it"}},
		{cfg: page("0.0.0.0:2381", "/t"), want: []string{"token can be read"}},
	} {
		got := exposures(c.cfg, c.users)
		ok := len(got) == len(c.want)
		for i := 0; ok && i < len(got); i++ {
			ok = strings.Contains(got[i].what, c.want[i]) && strings.Contains(got[i].what, "loopback")
		}
		if !ok {
			t.Errorf("%+v, users %t: %+v, want %q", c.cfg, c.users, got, c.want)
		}
	}
}
