package config

import (
	"strings"
	"testing"
)

func TestTokenKinds(t *testing.T) {
	for text, want := range map[string]string{
		"simple": "",
		"jwt,sign-method=RS256,priv-key=/k,pub-key=/p,ttl=5m": "",
		"":                                 "unknown",
		"simpel":                           "simple",
		"simple,ttl=5m":                    "no options",
		"jwt":                              "unknown",
		"jwt,ttl=5m":                       "sign-method is missing",
		"jwt,sign-method=":                 "one value",
		"jwt,sign-method=RS256,priv-key=k": "not absolute",
		"jwt,sign-method=RS256,ttl=5":      "not a positive duration",
		"jwt,sign-method=RS256,ttl=-5m":    "not a positive duration",
		"jwt,sign-method=RS256,pubkey=/k":  "pub-key",
		"jwt,sign-method=A,sign-method=B":  "one value",
	} {
		err := checkToken(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
