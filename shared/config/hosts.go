package config

import (
	"errors"
	"net/netip"
	"strings"
)

// textField is a stringField with a flag.
func textField(path, usage, allowed string, valid func(string) error, at func(*Config) *string) *field[Config] {
	f := stringField(path, allowed+`, or empty`, valid, at)
	f.usage = usage
	return f
}

// CheckHostAddress refuses what is not an address that other hosts can connect to.
func CheckHostAddress(s string) error {
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return errors.New("it is not IP:PORT")
	case a.Port() == 0:
		return errors.New("the port is 0")
	case a.Addr().IsUnspecified():
		return errors.New("other hosts cannot connect to it, it stands for all addresses of this host")
	}
	return nil
}

// CheckHostName refuses a name that could not be shown or typed.
func CheckHostName(s string) error {
	if s == "" || len(s) > 63 {
		return errors.New("it does not have 1 to 63 characters")
	}
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return errors.New("it has a character that is not allowed")
	}
	return nil
}
