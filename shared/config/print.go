package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// HCL returns c as a configuration file, in which a comment beside each field says where its value
// comes from. The fields of a service that have their defaults are left out. Reading the file gives
// the same configuration, because all paths are absolute.
func (c *Config) HCL() ([]byte, error) {
	var b bytes.Buffer
	open := ""
	for _, f := range fields {
		origin := "default"
		if at, ok := c.sources[f.path]; ok {
			origin = at
		}
		if err := printField(&b, &open, f, f.text(c), origin); err != nil {
			return nil, err
		}
	}
	closeBlock(&b, &open)
	for i := range c.Services {
		if err := c.Services[i].print(&b); err != nil {
			return nil, err
		}
	}
	return hclwrite.Format(b.Bytes()), nil
}

func (s *Service) print(b *bytes.Buffer) error {
	fmt.Fprintf(b, "\n# %s\n%s %s {\n", commentText(s.Source), serviceBlock, literal(cty.StringVal(s.Name)))
	base := NewService()
	if s.Ready != nil {
		base.Ready = newCheck()
	}
	if s.Alive != nil {
		base.Alive = newCheck()
	}
	open := ""
	for _, f := range serviceFields {
		text := f.text(s)
		if text == f.text(&base) {
			continue
		}
		if f.path == listenBlock {
			for _, l := range s.Listen {
				fmt.Fprintf(b, "%s %s {\naddress = %s\n}\n", listenBlock, literal(cty.StringVal(l.Name)), literal(cty.StringVal(l.Address)))
			}
			continue
		}
		if err := printField(b, &open, f, text, ""); err != nil {
			return err
		}
	}
	closeBlock(b, &open)
	b.WriteString("}\n")
	return nil
}

// printField writes a field. open is the block that is open so far; the fields of a block follow
// each other.
func printField[T any](b *bytes.Buffer, open *string, f *field[T], text, origin string) error {
	block, name, nested := strings.Cut(f.path, ".")
	if !nested {
		block, name = "", f.path
	}
	if block != *open {
		closeBlock(b, open)
		if *open = block; block != "" {
			fmt.Fprintf(b, "\n%s {\n", block)
		}
	}
	value, err := valueText(f, text)
	if err != nil {
		return fmt.Errorf("print %s: %w", f.path, err)
	}
	fmt.Fprintf(b, "%s = %s", name, value)
	if origin != "" {
		fmt.Fprintf(b, " # %s", commentText(origin))
	}
	b.WriteByte('\n')
	return nil
}

func closeBlock(b *bytes.Buffer, open *string) {
	if *open != "" {
		b.WriteString("}\n")
		*open = ""
	}
}

// valueText returns a value as it is written in a file.
func valueText[T any](f *field[T], text string) (string, error) {
	switch {
	case f.kind == "number", f.kind == "bool":
		return text, nil
	case f.kind == "map":
		var m map[string]string
		if err := fromJSON(text, &m); err != nil {
			return "", err
		}
		attrs := map[string]cty.Value{}
		for k, v := range m {
			attrs[k] = cty.StringVal(v)
		}
		return literal(cty.ObjectVal(attrs)), nil
	case f.kind == "list", f.kind == "hosts" && strings.HasPrefix(text, "["):
		var list []string
		if err := fromJSON(text, &list); err != nil {
			return "", err
		}
		values := make([]cty.Value, len(list))
		for i, v := range list {
			values[i] = cty.StringVal(v)
		}
		return literal(cty.TupleVal(values)), nil
	}
	return literal(cty.StringVal(text)), nil
}

func literal(v cty.Value) string { return string(hclwrite.TokensForValue(v).Bytes()) }

// commentText replaces what would end a comment.
func commentText(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
