package process

import (
	"fmt"
	"os/user"
	"strconv"
	"syscall"
)

// LookupCredential returns the credential of a user and a group. Each is a name, a number or
// empty. Without a group it is the user's primary group, and the user's supplementary groups are
// included. Without a user it is the user of this process. The result is nil if the program needs
// no change: both are empty, or an ordinary user named itself.
func LookupCredential(userName, groupName string) (*syscall.Credential, error) {
	if userName == "" && groupName == "" {
		return nil, nil
	}
	c := &syscall.Credential{Uid: uint32(syscall.Geteuid()), Gid: uint32(syscall.Getegid())}
	if userName != "" {
		if err := lookupUser(c, userName, groupName != ""); err != nil {
			return nil, err
		}
	}
	if groupName != "" {
		gid, err := lookupGroup(groupName)
		if err != nil {
			return nil, err
		}
		c.Gid = gid
	}
	if syscall.Geteuid() != 0 && int(c.Uid) == syscall.Geteuid() && int(c.Gid) == syscall.Getegid() {
		return nil, nil // only root may call setgroups(2)
	}
	return c, nil
}

func lookupUser(c *syscall.Credential, name string, hasGroup bool) error {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			uid, e := strconv.ParseUint(name, 10, 32)
			switch {
			case e != nil:
				return fmt.Errorf("unknown user %q", name)
			case !hasGroup:
				return fmt.Errorf("user %s is not in the list of users: set its group too", name)
			}
			c.Uid = uint32(uid)
			return nil
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("user %q has the unusable id %q", name, u.Uid)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return fmt.Errorf("user %q has the unusable group id %q", name, u.Gid)
	}
	c.Uid, c.Gid = uint32(uid), uint32(gid)
	groups, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("groups of user %q: %w", name, err)
	}
	for _, text := range groups {
		if g, err := strconv.ParseUint(text, 10, 32); err == nil {
			c.Groups = append(c.Groups, uint32(g))
		}
	}
	return nil
}

func lookupGroup(name string) (uint32, error) {
	text := name
	if g, err := user.LookupGroup(name); err == nil {
		text = g.Gid
	}
	gid, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("unknown group %q", name)
	}
	return uint32(gid), nil
}
