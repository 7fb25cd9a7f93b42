package apps

import (
	"fmt"
	"os"
	"strings"
)

// sqlite3 in the middle of one long transaction: a database file under POSIX
// locks, a rollback journal that outgrows the cache, a script read through an
// offset. What was not committed at the checkpoint must still be so.
var _ = register(&App{
	Name:    "sqlite",
	Short:   true,
	Needs:   []Need{{"sqlite3", "sqlite3"}},
	Command: []string{"sqlite3", "-init", "script.sql", "bank.db", ""},
	Prepare: func(s *stage) {
		// One transaction of many rounds, each followed by a line of progress.
		var b strings.Builder
		b.WriteString(s.read("work.sql"))
		for r := range 80 {
			fmt.Fprintf(&b, `
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
INSERT INTO account SELECT %[1]d * 1000 + i, printf('owner %%05d', (i * 7919 + %[1]d) %% 99991), i * 13 %% 1009 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600)
INSERT INTO movement(source, target, amount) SELECT (i * 31 + %[1]d) %% 600 + 1, i, i %% 50 FROM n;
UPDATE account SET balance = balance - (SELECT coalesce(sum(amount), 0) FROM movement WHERE source = account.id) WHERE id < 700;
SAVEPOINT s;
DELETE FROM account WHERE id %% 7 = %[1]d %% 7 AND id > 1000;
%[2]s s;
.shell echo %[1]d >>progress
`, r, []string{"RELEASE", "ROLLBACK TO", "RELEASE"}[r%3])
		}
		b.WriteString("COMMIT;\nPRAGMA integrity_check;\nSELECT count(*), sum(balance), max(owner) FROM account;\nSELECT count(*), sum(amount) FROM movement;\n.exit\n")
		s.write("script.sql", []byte(b.String()))
	},
	Result: func(s *stage) string {
		if _, err := os.Stat(s.Dir + "/bank.db-journal"); err == nil {
			s.failf("the journal was left behind")
		}
		return s.command("sqlite3", "bank.db", "SELECT * FROM account ORDER BY id; SELECT * FROM movement ORDER BY id;")
	},
})
