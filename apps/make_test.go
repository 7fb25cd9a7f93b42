package apps

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// make -j4 compiling and linking a C project of forty files: a jobserver pipe,
// vfork and exec, compilers and assemblers that live for milliseconds, each with
// its temporary files.
var _ = register(&App{
	Name:    "make",
	Needs:   []Need{{"make", "make"}, {"cc", "gcc"}},
	Command: []string{"make", "-s", "-j4", "all"},
	Prepare: func(s *stage) {
		var modules []string
		for i := range makeModules {
			name := fmt.Sprintf("m%02d", i)
			modules = append(modules, name)
			s.write(name+".c", []byte(module(i)))
		}
		var h, m strings.Builder
		h.WriteString("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n")
		m.WriteString("#include \"all.h\"\nint main(void) {\n\tunsigned long s = 1;\n")
		for i, name := range modules {
			fmt.Fprintf(&h, "unsigned long %s(unsigned long);\n", name)
			fmt.Fprintf(&m, "\ts = %s(s + %d);\n", name, i)
		}
		m.WriteString("\tprintf(\"%lu\\n\", s);\n\treturn 0;\n}\n")
		s.write("all.h", []byte(h.String()))
		s.write("main.c", []byte(m.String()))
	},
	Progress: func(s *stage) int {
		// What was compiled, four steps to a file: finer than objects alone.
		done, _ := filepath.Glob(filepath.Join(s.Dir, "*.[sio]"))
		return len(done)
	},
	Result: func(s *stage) string {
		var b strings.Builder
		all, _ := filepath.Glob(filepath.Join(s.Dir, "*"))
		for _, f := range all {
			st, err := os.Lstat(f)
			if err != nil {
				s.failf("%v", err)
			}
			fmt.Fprintln(&b, filepath.Base(f), st.Mode())
		}
		b.WriteString(s.command("sh", "-c", "sha256sum *.o program libparts.a"))
		b.WriteString(s.command("./program"))
		return b.String()
	},
})

// What is compiled: so many files of so many functions each.
const (
	makeModules = 40
	moduleParts = 4
)

// module is a C file that keeps a compiler busy for a while.
func module(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#include \"all.h\"\n#define N %d\n", 40+n)
	for f := range moduleParts {
		fmt.Fprintf(&b, `
static double table%[1]d[N][N];
static unsigned long part%[1]d(unsigned long s) {
	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++)
			table%[1]d[i][j] = fmod((double)((s + i * %[2]d + j) %% 1009), 7.0 + j %% %[3]d);
	for (int i = 1; i < N; i++) {
		for (int j = 1; j < N; j++) {
			table%[1]d[i][j] += table%[1]d[i - 1][j] * 0.25 + table%[1]d[i][j - 1] * 0.5;
			switch ((s + i * j) %% %[4]d) {
			case 0: s = s * 31 + i; break;
			case 1: s ^= (unsigned long)table%[1]d[i][j]; break;
			case 2: s += strlen("module %[2]d"); break;
			case 3: s = s << 3 | s >> 61; break;
			case 4: s -= j; break;
			default: s++;
			}
		}
	}
	return s;
}
`, f, n+1, 3+f, 5+f%3)
	}
	fmt.Fprintf(&b, "unsigned long m%02d(unsigned long s) {\n", n)
	for f := range moduleParts {
		fmt.Fprintf(&b, "\ts = part%d(s);\n", f)
	}
	b.WriteString("\treturn s;\n}\n")
	return b.String()
}
