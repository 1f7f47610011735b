package config

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// servicePath names a field of a service: stop.timeout of the service with an index. The path
// "" is the name of the service, and "stop" is the block.
type servicePath struct {
	service int
	path    string
}

// serviceReader reads one service block.
type serviceReader struct {
	*reader
	index int
	s     Service
}

// service reads a block service "NAME" { ... }.
func (r *reader) service(b *hclsyntax.Block) {
	x := &serviceReader{reader: r, index: len(r.config.Services), s: NewService()}
	x.s.Source = fmt.Sprintf("%s:%d", r.name, b.TypeRange.Start.Line)
	switch at := b.TypeRange; {
	case len(b.Labels) == 0:
		r.errs.add(&at, "%s: the name is missing; want service \"NAME\" { ... }", serviceBlock)
		return
	case len(b.Labels) > 1:
		r.errs.add(&b.LabelRanges[1], "service %q %q: a service has one name; want service \"NAME\" { ... }", clip(b.Labels[0]), clip(b.Labels[1]))
		return
	case !namePattern.MatchString(b.Labels[0]):
		r.errs.add(&b.LabelRanges[0], "service %q: invalid name; want %s", clip(b.Labels[0]), wantName)
		return
	}
	x.s.Name = b.Labels[0]
	x.serviceAt[servicePath{x.index, ""}] = b.LabelRanges[0]
	x.body(b.Body, "")
	if x.s.Dir == "" {
		x.s.Dir = x.base()
	}
	if _, given := x.where("restart"); !given && x.s.Schedule != "" {
		x.s.Restart = RestartNever
	}
	r.config.Services = append(r.config.Services, x.s)
}

// where returns where the block sets a field.
func (x *serviceReader) where(path string) (hcl.Range, bool) {
	at, ok := x.serviceAt[servicePath{x.index, path}]
	return at, ok
}

// body reads the block itself (prefix "") or a block in it ("stop.").
func (x *serviceReader) body(body *hclsyntax.Body, prefix string) {
	for _, a := range inOrder(body.Attributes) {
		f := serviceByPath[prefix+a.Name]
		if f == nil || f.path == listenBlock {
			x.unknownField(prefix, a)
			continue
		}
		if at := a.Expr.Range(); attribute(x.reader, x.s.Name, f, &x.s, a, x.base()) {
			x.serviceAt[servicePath{x.index, f.path}] = at
		}
	}
	for _, b := range body.Blocks {
		at := b.TypeRange
		switch {
		case prefix == "" && b.Type == listenBlock:
			x.listen(b)
		case prefix != "" || !slices.Contains(serviceBlockNames(), b.Type):
			x.unknownBlock(prefix, b)
		case len(b.Labels) > 0:
			x.errs.add(&b.LabelRanges[0], "%s.%s %q: this block has no label; want %s { ... }", x.s.Name, b.Type, clip(b.Labels[0]), b.Type)
		default:
			if first, twice := x.where(b.Type); twice {
				x.errs.add(&at, "block %s.%s: given twice, first at %s; want one block with all its fields", x.s.Name, b.Type, position(first))
				continue
			}
			x.serviceAt[servicePath{x.index, b.Type}] = at
			x.body(b.Body, b.Type+".")
			x.complete(b)
		}
	}
}

// complete checks that a block whose fields exclude each other has one of them.
func (x *serviceReader) complete(b *hclsyntax.Block) {
	at := b.TypeRange
	switch check := map[string]*Check{"ready": x.s.Ready, "alive": x.s.Alive}[b.Type]; {
	case b.Type == "reload" && len(b.Body.Attributes) == 0:
		x.errs.add(&at, "%s.reload: nothing is given; want signal or exec", x.s.Name)
	case (b.Type == "ready" || b.Type == "alive") && (check == nil || check.Kind == ""):
		// If a field was refused, the message about it says enough.
		for _, kind := range checkKinds {
			if b.Body.Attributes[string(kind)] != nil {
				return
			}
		}
		x.errs.add(&at, "%s.%s: it does not say how to check; want one of %s", x.s.Name, b.Type, strings.Join(kindsOf(b.Type), ", "))
	}
}

// kindsOf returns the fields of the block ready or alive that decide the kind of check.
func kindsOf(block string) []string {
	var out []string
	for _, kind := range checkKinds {
		if serviceByPath[block+"."+string(kind)] != nil {
			out = append(out, string(kind))
		}
	}
	return out
}

// listen reads a block listen "NAME" { ... }.
func (x *serviceReader) listen(b *hclsyntax.Block) {
	at := b.TypeRange
	switch {
	case len(b.Labels) != 1:
		x.errs.add(&at, "%s.listen: a socket has one name; want listen \"NAME\" { address = ... }", x.s.Name)
		return
	case !namePattern.MatchString(b.Labels[0]):
		x.errs.add(&b.LabelRanges[0], "%s.listen %q: invalid name; want %s", x.s.Name, clip(b.Labels[0]), wantName)
		return
	}
	l := Listen{Name: b.Labels[0]}
	path := listenBlock + "." + l.Name
	if first, twice := x.where(path); twice {
		x.errs.add(&b.LabelRanges[0], "block %s.%s: given twice, first at %s; want another name for each socket", x.s.Name, path, position(first))
		return
	}
	x.serviceAt[servicePath{x.index, path}] = b.LabelRanges[0]
	f := listenFields[0]
	for _, a := range inOrder(b.Body.Attributes) {
		if a.Name != f.path {
			x.errs.add(&a.NameRange, "unknown field %q in the block %s.%s%s; want %s", clip(a.Name), x.s.Name, path, suggestion(a.Name, []string{f.path}), f.path)
		} else if attribute(x.reader, x.s.Name+"."+path, f, &l, a, "") {
			x.serviceAt[servicePath{x.index, path}] = a.Expr.Range()
		}
	}
	for _, inner := range b.Body.Blocks {
		x.errs.add(&inner.TypeRange, "unknown block %q in the block %s.%s; want only the field %s there", clip(inner.Type), x.s.Name, path, f.path)
	}
	if b.Body.Attributes[f.path] == nil {
		x.errs.add(&at, "%s.%s: the field %s is missing; want %s", x.s.Name, path, f.path, f.allowed)
	}
	x.s.Listen = append(x.s.Listen, l)
}

// attribute reads a field of a service. Relative paths start at base.
func attribute[T any](r *reader, owner string, f *field[T], to *T, a *hclsyntax.Attribute, base string) bool {
	at := a.Expr.Range()
	if r.broken(at) {
		return false
	}
	err := duplicateKey(a.Expr)
	var text string
	if err == nil {
		text, err = value(f, a.Expr)
	}
	if err == nil {
		if f.kind == "path" && text != "" && text[0] != '~' && !filepath.IsAbs(text) {
			text = filepath.Join(base, text)
		}
		err = f.set(to, text)
	}
	if err != nil {
		shown := r.source(at)
		if f.path == "env" {
			shown = "{ ... }" // its values may be secret
		}
		r.errs.add(&at, "%s.%s = %s: %v; want %s", owner, f.path, shown, err, f.allowed)
	}
	return err == nil
}

// duplicateKey refuses an object that gives a key twice. With HCL alone the last one wins.
func duplicateKey(expr hclsyntax.Expression) error {
	object, ok := expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for _, item := range object.Items {
		v, diags := item.KeyExpr.Value(nil)
		key, err := stringValue(v)
		if diags.HasErrors() || err != nil {
			continue // the evaluation of the object reports it
		}
		if seen[key] {
			return fmt.Errorf("%s is given twice", clip(key))
		}
		seen[key] = true
	}
	return nil
}

// base is the directory of the file, or the working directory if there is no file.
func (r *reader) base() string {
	dir := filepath.Dir(r.name)
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir // the check of the field refuses it
}

// inOrder returns the fields of a body in the order of the file.
func inOrder(attributes hclsyntax.Attributes) []*hclsyntax.Attribute {
	return slices.SortedFunc(maps.Values(attributes), func(a, b *hclsyntax.Attribute) int {
		return cmp.Compare(a.SrcRange.Start.Byte, b.SrcRange.Start.Byte)
	})
}

func (x *serviceReader) unknownField(prefix string, a *hclsyntax.Attribute) {
	names, blocks := serviceFieldNames(prefix), serviceBlockNames()
	hint := suggestion(a.Name, names)
	known := strings.Join(names, ", ")
	if prefix == "" {
		if slices.Contains(blocks, a.Name) {
			hint = fmt.Sprintf(" (a block is written without an equals sign: %s { ... })", a.Name)
		} else if i := slices.IndexFunc(serviceFields, func(f *field[Service]) bool { return leaf(f.path) == a.Name && f.path != a.Name }); hint == "" && i >= 0 {
			block, _, _ := strings.Cut(serviceFields[i].path, ".")
			hint = fmt.Sprintf(" (it belongs in the block %s)", block)
		}
		known += ", or a block: " + strings.Join(blocks, ", ")
	}
	x.errs.add(&a.NameRange, "unknown field %q in the block %s%s; want one of %s", clip(a.Name), x.title(prefix), hint, known)
}

func (x *serviceReader) unknownBlock(prefix string, b *hclsyntax.Block) {
	at := b.TypeRange
	switch {
	case serviceByPath[prefix+b.Type] != nil:
		x.errs.add(&at, "%s.%s%s is a field, not a block; want %s = ...", x.s.Name, prefix, b.Type, b.Type)
	case prefix != "":
		x.errs.add(&at, "unknown block %q in the block %s; want only fields there: %s", clip(b.Type), x.title(prefix), strings.Join(serviceFieldNames(prefix), ", "))
	default:
		x.errs.add(&at, "unknown block %q in the block %s%s; want one of %s", clip(b.Type), x.title(prefix),
			suggestion(b.Type, serviceBlockNames()), strings.Join(serviceBlockNames(), ", "))
	}
}

// title names a block of the service in a message.
func (x *serviceReader) title(prefix string) string {
	if prefix == "" {
		return fmt.Sprintf("service %q", x.s.Name)
	}
	return x.s.Name + "." + strings.TrimSuffix(prefix, ".")
}

// serviceFieldNames returns the fields of a block in a service ("stop.") or of the service ("").
func serviceFieldNames(prefix string) []string {
	var out []string
	for _, f := range serviceFields {
		if rest, ok := strings.CutPrefix(f.path, prefix); ok && !strings.Contains(rest, ".") && rest != listenBlock {
			out = append(out, rest)
		}
	}
	return out
}

func serviceBlockNames() []string {
	out := []string{listenBlock}
	for _, f := range serviceFields {
		if block, _, ok := strings.Cut(f.path, "."); ok && !slices.Contains(out, block) {
			out = append(out, block)
		}
	}
	return out
}

// blameService returns the position of the first of these fields that the file sets, or that of
// the service's name.
func (r *reader) blameService(x serviceConflict) *hcl.Range {
	for _, p := range append(slices.Clone(x.paths), "") {
		if at, ok := r.serviceAt[servicePath{x.service, p}]; ok {
			return &at
		}
	}
	return nil
}
