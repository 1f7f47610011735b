package member

import (
	"os"
	"reflect"
	"testing"
)

func TestNameListeners(t *testing.T) {
	a, b := os.Stdin, os.Stdout
	l, err := NameListeners([]string{"clients", "dashboard"}, []*os.File{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if l.File("clients") != a || l.File("dashboard") != b || l.File("member") != nil {
		t.Errorf("files %v", l)
	}
	if !reflect.DeepEqual(l.Names(), []string{"clients", "dashboard"}) || !reflect.DeepEqual(l.Files(), []*os.File{a, b}) {
		t.Errorf("%v %v", l.Names(), l.Files())
	}
	for _, names := range [][]string{{"a"}, {"a", "a"}, {"a", ""}, {"a", "b", "c"}, nil} {
		if _, err := NameListeners(names, []*os.File{a, b}); err == nil {
			t.Errorf("%q is taken", names)
		}
	}
}
