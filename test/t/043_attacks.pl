
# What a role that may schedule tries in order to become more than it is, to
# see what is not its own, or to be in the way of others.
#
# mallory has USAGE on the schema taskshed, a schema of her own and CREATE on
# public, as in databases of old.  victim is a role like hers with secrets,
# and the superuser has tasks as well.  Whatever she has others run by mistake
# is a trap: it leaves a line in the log that says as whom, and no rollback
# takes that back.  A table holds most of the attacks; what she tries is also
# tried by the superuser, who succeeds, so that a refusal means something.
#
# Quick: promises 7 and 8

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'attacks', conf => q{
max_prepared_transactions = 5
taskshed.max_interruptions = 1
taskshed.worker_idle_timeout = 5s
});
my $super   = $node->safe_psql('postgres', 'SELECT current_user');
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');

sub as
{
	return psql_as($node, @_);
}

# The superuser's sessions of this test are not to walk into her traps by
# themselves.
$ENV{PGOPTIONS} = '-c search_path=public';

$node->safe_psql(
	'postgres', q{
REVOKE USAGE ON SCHEMA taskshed FROM PUBLIC;
CREATE ROLE mallory LOGIN;
CREATE ROLE victim LOGIN;
CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats;
CREATE ROLE clerk LOGIN IN ROLE pg_write_all_data;
GRANT USAGE ON SCHEMA taskshed TO mallory, victim, watcher;
CREATE SCHEMA mallory AUTHORIZATION mallory;
CREATE SCHEMA victim AUTHORIZATION victim;
GRANT ALL ON SCHEMA mallory TO PUBLIC;
CREATE TABLE public.crown (worn_by text);
INSERT INTO crown VALUES ('nobody');
CREATE TABLE victim.secret (t text);
ALTER TABLE victim.secret OWNER TO victim;
INSERT INTO victim.secret VALUES ('Xyzzy');

-- The SQLSTATE of a command, which is rolled back if it succeeds.
CREATE FUNCTION public.state_of(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		EXECUTE command;
		RAISE SQLSTATE 'ZZZZZ';
	EXCEPTION WHEN OTHERS THEN
		IF SQLSTATE <> 'ZZZZZ' THEN
			RETURN SQLSTATE;
		END IF;
	END;
	RETURN '00000';
END $$;
CREATE FUNCTION public.tick() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note('tick', (taskshed.current_task()).run_at);
END $$;
});

# What mallory prepares.  climb() executes a command and then tries what it
# might have gained by it.
(   my $preparation = q{
CREATE TABLE mallory.caught (what text, who text);
GRANT ALL ON mallory.caught TO PUBLIC;
CREATE FUNCTION mallory.spring(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE LOG 'sprung by %/%: %', session_user, current_user, what;
END $$;
CREATE FUNCTION mallory.climb(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text := '00000';
BEGIN
	BEGIN
		EXECUTE command;
	EXCEPTION WHEN OTHERS THEN
		state := SQLSTATE;
	END;
	BEGIN
		UPDATE public.crown SET worn_by = 'mallory';
		state := state || ' crowned';
	EXCEPTION WHEN insufficient_privilege THEN
	END;
	BEGIN
		PERFORM * FROM victim.secret;
		state := state || ' read';
	EXCEPTION WHEN insufficient_privilege THEN
	END;
	RETURN state || ' ' || session_user || '/' || current_user;
END $$;
CREATE FUNCTION mallory.dressed() RETURNS void LANGUAGE sql AS '';
ALTER FUNCTION mallory.dressed() SET role = 'SUPER';
CREATE PROCEDURE mallory.climb_out(command text, INOUT result text DEFAULT '') LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
	EXECUTE command;
	COMMIT;
	result := mallory.climb('RESET ROLE');
	ROLLBACK;
	result := result || ' ' || mallory.climb(command);
END $$;
SELECT 'prepared'}) =~ s/SUPER/$super/;
is(as('mallory', $preparation), 'prepared', 'mallory is prepared');

# ------------------------------------------------------------------------
# The others are at work all the time; at the end we look how they did.

as( 'victim', q{
CREATE FUNCTION victim.report(secret text) RETURNS text LANGUAGE sql AS $$ SELECT 'reported' $$;
CREATE FUNCTION victim.count_it(n integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION victim.fails(secret text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'sorry'; END $$;
SELECT taskshed.add_callback('reporting', 'victim.report');
SELECT taskshed.add_task('public.tick', task_id => 'victims tick', every => '50 ms', history => 'errors');
SELECT taskshed.add_task('victim.report', now() + interval '1 day', '{"secret": "Xyzzy"}', task_id => 'target', group_id => 'victims');
SELECT taskshed.add_task('reporting', now() + interval '1 day', '{"secret": "Xyzzy"}', task_id => 'victims by alias');
SELECT taskshed.add_task('victim.count_it', kwargs => '{"n": "Xyzzy"}', task_id => 'victims mistake', validate => false);
SELECT taskshed.add_task('victim.fails', kwargs => '{"secret": "Xyzzy"}', task_id => 'victims failure')}
);
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('tick', task_id => 'superusers tick', every => '50 ms', history => 'errors')}
);
my $target =
  q{SELECT md5(string_agg(t::text, ',' ORDER BY task_id)) FROM taskshed.tasks t
	WHERE owner = 'victim' AND task_id <> 'victims tick'};
await_state($node, "victims $_", 'failed') foreach ('mistake', 'failure');
my $untouched = $node->safe_psql('postgres', $target);

# ------------------------------------------------------------------------
# What others' objects can be done to: every table, view, sequence and
# function of the extension, and the schema.

my $objects = q{
SELECT md5(string_agg(x, ',' ORDER BY x)) FROM (
	SELECT concat_ws(',', relname, relacl, relowner, relkind, reloptions, relhastriggers, relhasrules, relrowsecurity)
		FROM pg_class WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace)
	UNION ALL SELECT concat_ws(',', p.oid::regprocedure, coalesce(proacl, acldefault('f', proowner)), proowner, prosecdef, proconfig)
		FROM pg_proc p WHERE pronamespace = 'taskshed'::regnamespace
	UNION ALL SELECT concat_ws(',', nspname, nspowner, grantee) FROM pg_namespace, aclexplode(nspacl)
		WHERE nspname = 'taskshed' AND privilege_type = 'CREATE' OR nspname = '_taskshed'
	UNION ALL SELECT concat_ws(',', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
		WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace)) AS o (x)};
my $as_made = $node->safe_psql('postgres', $objects);

my %commands = (
	table => q{relkind = 'r'},
	view  => q{relkind = 'v'},
	seq   => q{relkind = 'S'});
my %on = (
	table => [
		'SELECT 1 FROM %1$s',
		'INSERT INTO %1$s DEFAULT VALUES',
		'UPDATE %1$s SET %2$I = NULL',
		'DELETE FROM %1$s',
		'TRUNCATE %1$s',
		'LOCK %1$s IN ACCESS SHARE MODE',
		'LOCK %1$s IN ACCESS EXCLUSIVE MODE',
		'SELECT 1 FROM %1$s FOR UPDATE',
		'CREATE TRIGGER t BEFORE INSERT ON %1$s FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()',
		'CREATE INDEX ON %1$s (%2$I)',
		'CREATE STATISTICS mallory.s (ndistinct) ON %2$I, ctid FROM %1$s',
		'CREATE RULE r AS ON INSERT TO %1$s DO INSTEAD NOTHING',
		'CREATE POLICY p ON %1$s',
		'CREATE VIEW mallory.v AS SELECT * FROM %1$s; SELECT 1 FROM mallory.v',
		'CREATE TABLE mallory.child () INHERITS (%1$s)',
		'CREATE TABLE mallory.refers (x bigint REFERENCES %1$s)',
		'CREATE TABLE mallory.likeness (LIKE %1$s)',
		'ALTER TABLE %1$s ENABLE ROW LEVEL SECURITY',
		'ALTER TABLE %1$s DISABLE TRIGGER ALL',
		'ALTER TABLE %1$s ADD COLUMN x integer',
		'ALTER TABLE %1$s OWNER TO mallory',
		'ALTER TABLE %1$s RENAME TO x',
		'ALTER TABLE %1$s SET SCHEMA mallory',
		'ALTER TABLE %1$s SET UNLOGGED',
		'CLUSTER %1$s',
		'REINDEX TABLE %1$s',
		'COMMENT ON TABLE %1$s IS NULL',
		'GRANT SELECT ON %1$s TO mallory',
		'DROP TABLE %1$s CASCADE'
	],
	view => [
		'INSERT INTO %1$s DEFAULT VALUES',
		'DELETE FROM %1$s',
		'LOCK %1$s IN ROW EXCLUSIVE MODE',
		'LOCK %1$s IN ACCESS EXCLUSIVE MODE',
		'SELECT 1 FROM %1$s FOR UPDATE',
		'CREATE TRIGGER t INSTEAD OF INSERT ON %1$s FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()',
		'CREATE RULE r AS ON INSERT TO %1$s DO INSTEAD NOTHING',
		'CREATE OR REPLACE VIEW %1$s AS SELECT 1 AS x',
		'ALTER VIEW %1$s SET (security_barrier = false)',
		'ALTER VIEW %1$s OWNER TO mallory',
		'COMMENT ON VIEW %1$s IS NULL',
		'DROP VIEW %1$s CASCADE'
	],
	seq => [
		q{SELECT nextval('%1$s')},
		q{SELECT setval('%1$s', 1000000)},
		'SELECT last_value FROM %1$s',
		'ALTER SEQUENCE %1$s RESTART',
		'ALTER SEQUENCE %1$s OWNED BY mallory.caught.what',
		'DROP SEQUENCE %1$s CASCADE'
	]);
my @objects = map {
	my $kind = $_;
	map {
		[
			"$kind: $_",
			qq{SELECT format(\$f\$$_\$f\$, c.oid::regclass, attname)
			FROM pg_class c LEFT JOIN pg_attribute a ON attrelid = c.oid AND attnum = 1
			WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND $commands{$kind}}
		]
	} @{ $on{$kind} }
} ('table', 'view', 'seq');
push @objects, map {
	[
		"function: $_",
		qq{SELECT format(\$f\$$_\$f\$, p.oid::regprocedure, CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END)
		FROM pg_proc p WHERE pronamespace = 'taskshed'::regnamespace}
	]
} ( 'ALTER %2$s %1$s OWNER TO mallory',
	'ALTER %2$s %1$s RENAME TO x',
	'ALTER %2$s %1$s SET SCHEMA mallory',
	'ALTER %2$s %1$s SECURITY DEFINER',
	'ALTER %2$s %1$s SET search_path = mallory',
	'COMMENT ON %2$s %1$s IS NULL',
	'DROP %2$s %1$s CASCADE');
push @objects,
  map { [ $_, "SELECT \$f\$$_\$f\$" ] } (
	'CREATE TABLE taskshed.x ()',
	'CREATE TABLE _taskshed.x ()',
	'CREATE FUNCTION taskshed.add_task(text) RETURNS text LANGUAGE sql AS $$ SELECT 1 $$',
	'CREATE TYPE taskshed.x AS ENUM ()',
	'CREATE OPERATOR taskshed.= (FUNCTION = texteq, LEFTARG = text, RIGHTARG = text)',
	'ALTER FUNCTION mallory.spring(text) SET SCHEMA taskshed',
	'ALTER TYPE taskshed.task_execution_time ADD ATTRIBUTE x text',
	'ALTER SCHEMA taskshed RENAME TO x',
	'ALTER SCHEMA taskshed OWNER TO mallory',
	'DROP SCHEMA taskshed CASCADE',
	'ALTER SCHEMA _taskshed RENAME TO x',
	'ALTER SCHEMA _taskshed OWNER TO mallory',
	'GRANT USAGE ON SCHEMA _taskshed TO mallory',
	'DROP SCHEMA _taskshed CASCADE',
	'DROP EXTENSION taskshed CASCADE',
	'ALTER EXTENSION taskshed DROP TABLE _taskshed.task',
	'ALTER EXTENSION taskshed ADD TABLE mallory.caught',
	'COMMENT ON EXTENSION taskshed IS NULL',
	'CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION suppress_redundant_updates_trigger()',
	'CREATE PUBLICATION p FOR TABLE _taskshed.task',
	"ALTER DEFAULT PRIVILEGES FOR ROLE $super GRANT ALL ON TABLES TO mallory",
	"REASSIGN OWNED BY $super TO mallory",
	'REASSIGN OWNED BY victim TO mallory',
	'DROP OWNED BY victim',
	'ALTER ROLE victim SET search_path = mallory',
	'ALTER DATABASE postgres SET search_path = mallory');

# Each command is refused for each object, or fails as it does for superusers.
foreach my $attack (@objects)
{
	my ($name, $query) = @$attack;
	my $states =
	  "SELECT command || ' > ' || public.state_of(command) FROM ($query) AS q (command) ORDER BY 1";
	my @hers   = split /\n/, as('mallory', $states);
	my %supers = map { $_ => 1 } split /\n/,
	  $node->safe_psql('postgres', $states);

	is( join("\n",
			grep { !/ > 42501$/ && (/ > 00000$/ || !$supers{$_}) } @hers),
		'',
		"$name is refused");
	if ($name =~ /^view: (?:INSERT|DELETE)/)
	{
		is_deeply(
			[
				grep { !/ _taskshed\./ && (!$supers{$_} || !/ > 55000$/) }
				  @hers
			],
			[],
			'... to superusers, too');
		next;
	}
	cmp_ok(scalar(grep { / > 42501$/ && !$supers{$_} } @hers),
		'>', 0, '... and not to superusers');
}
foreach my $copy (
	'COPY _taskshed.task TO STDOUT',
	'COPY _taskshed.alarm FROM STDIN',
	'COPY _taskshed.run_0 TO STDOUT',
	'COPY _taskshed.callback TO STDOUT')
{
	is(as('mallory', "$copy;\n\\.\n"), '42501', "$copy is refused");
}
is( as( 'mallory', q{
	GRANT ALL ON SCHEMA taskshed TO mallory;
	GRANT ALL ON taskshed.tasks TO mallory WITH GRANT OPTION;
	GRANT EXECUTE ON FUNCTION taskshed.next_wakeup() TO mallory WITH GRANT OPTION;
	REVOKE ALL ON FUNCTION taskshed.next_wakeup() FROM PUBLIC;
	SELECT 'warned'}),
	'warned',
	'granting what is not hers');
is(as('mallory', $_), '42501', $_)
  foreach 'ANALYZE _taskshed.task', 'VACUUM _taskshed.alarm';
is($node->safe_psql('postgres', $objects),
	$as_made, '... changes nothing, nor did the rest');

# A role that may write all tables may not write these.
is(as('clerk', "$_->[1]"), '42501', "pg_write_all_data: $_->[0] is refused")
  foreach (
	[
		'a task of a superuser',
		q{INSERT INTO _taskshed.task (id, owner) VALUES (1, 10)}
	],
	[ 'another owner', q{UPDATE _taskshed.task SET owner = 10} ],
	[
		'an alias',
		q{INSERT INTO _taskshed.callback VALUES (10, 'x', 'f', 'mallory.climb')}
	],
	[ 'no alarms',  q{DELETE FROM _taskshed.alarm} ],
	[ 'no history', q{DELETE FROM _taskshed.run_0} ]);

# ------------------------------------------------------------------------
# The functions, about tasks of another owner.

foreach my $call (
	q{add_task('mallory.climb', kwargs => '{"command": ""}', owner => 'victim')},
	q{add_task('mallory.climb', kwargs => '{"command": ""}', owner => 'victim', validate => false)},
	q{add_task('mallory.climb', kwargs => '{"command": ""}', task_id => 'target', owner => 'SUPER')},
	q{add_tasks('[{"callback": "victim.report", "owner": "victim"}]')},
	q{add_tasks('[{"callback": "mallory.climb", "validate": false, "owner": "SUPER"}]')},
	q{pause_tasks(ARRAY['target'], owner => 'victim')},
	q{pause_tasks(group_id => 'victims', owner => 'victim')},
	q{resume_tasks(ARRAY['target'], owner => 'victim')},
	q{remove_tasks(ARRAY['target'], owner => 'victim')},
	q{remove_tasks(group_id => 'victims', owner => 'victim')},
	q{remove_all_tasks('victim')},
	q{remove_all_tasks('SUPER')},
	q{cancel_tasks(ARRAY['target'], owner => 'victim')},
	q{retry_tasks(ARRAY['victims failure'], owner => 'victim')},
	q{run_tasks(ARRAY['target'], owner => 'victim')},
	q{pause_task('target', 'victim')},
	q{resume_task('target', 'victim')},
	q{remove_task('target', 'victim')},
	q{cancel_task('target', 'victim')},
	q{retry_task('victims failure', 'victim')},
	q{update_execution_time('target', now(), 'victim')},
	q{update_execution_times(ARRAY[('target', now())]::taskshed.task_execution_time[], 'victim')},
	q{fetch_task('target', 'victim')},
	q{fetch_tasks(ARRAY['target'], owner => 'victim')},
	q{fetch_tasks(owner => 'victim')},
	q{try_task('target')},
	q{next_runs(task_id => 'target')},
	q{_start_scheduler()},
	q{_check_install()})
{
	(my $sql = "SELECT taskshed.$call") =~ s/SUPER/$super/;
	is(as('mallory', $sql), '42501', "$call is refused");
}
is(as('mallory', $_->[0]), $_->[1], "$_->[0] finds nothing")
  foreach (
	[ q{SELECT taskshed.pause_task('target')},                         'f' ],
	[ q{SELECT taskshed.pause_tasks(ARRAY['target'])},                 '0' ],
	[ q{SELECT taskshed.pause_tasks(group_id => 'victims')},           '0' ],
	[ q{SELECT taskshed.remove_task('target')},                        'f' ],
	[ q{SELECT taskshed.remove_all_tasks()},                           '0' ],
	[ q{SELECT taskshed.run_tasks(ARRAY['target'])},                   '0' ],
	[ q{SELECT taskshed.update_execution_time('target', now())},       'f' ],
	[ q{SELECT taskshed.remove_callback('reporting')},                 'f' ],
	[ q{SELECT count(*) FROM taskshed.fetch_tasks()},                  '0' ],
	[ q{SELECT count(taskshed.next_wakeup())},                         '0' ],
	[ q{SELECT count(*) FROM taskshed._running()},                     '0' ],
	[ q{SELECT count(*) FROM taskshed.tasks},                          '0' ],
	[ q{SELECT count(*) FROM taskshed.runs},                           '0' ],
	[ q{SELECT count(*) FROM taskshed.callbacks},                      '0' ],
	[ q{SELECT count((taskshed.current_task()).task_id)},              '0' ],
	[ q{SELECT count(*) FROM pg_stats WHERE schemaname = '_taskshed'}, '0' ]);
$node->safe_psql('postgres', 'ANALYZE _taskshed.task');
is( as( 'mallory',
		q{SELECT count(*) FROM pg_stats WHERE schemaname = '_taskshed'}),
	'0',
	'nor do the statistics');
isnt(
	$node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM pg_stats WHERE schemaname = '_taskshed'}),
	'0',
	'... which a superuser has');

# The same names are another's business.
is( as( 'mallory', q{
	SELECT taskshed.add_task('mallory.climb', '2100-01-01', '{"command": ""}', task_id => 'target', group_id => 'victims');
	SELECT taskshed.add_callback('reporting', 'mallory.climb');
	SELECT taskshed.add_task('reporting', '2100-01-01', '{"command": ""}', task_id => 'x');
	SELECT taskshed.remove_all_tasks()}),
	"target\n\nx\n2",
	'a task_id, group and alias that another has, too');
is(as('mallory', q{SELECT taskshed.add_task('reports', '2100-01-01')}),
	'42883', 'no alias but her own');
is(as('mallory', q{CALL taskshed.execute('SELECT 1')}),
	'42501', 'taskshed.execute');
is( as( 'mallory',
		q{SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "SELECT 1"}')}
	),
	'42501',
	'scheduling it');
is( as( 'mallory',
		q{SELECT taskshed.add_callback('x', 'taskshed.execute'); SELECT taskshed.add_task('x', kwargs => '{"command": "SELECT 1"}')}
	),
	'42501',
	'scheduling it by an alias');
as('mallory',
	q{SELECT taskshed.add_task('x', kwargs => '{"command": "SELECT 1"}', task_id => 'execute', validate => false)}
);
await_state($node, 'execute', 'failed');
is( $node->safe_psql(
		'postgres',
		q{SELECT last_sqlstate FROM taskshed.tasks WHERE task_id = 'execute'}
	),
	'42501',
	'and unchecked');
as('mallory',
	q{SELECT taskshed.remove_task('execute'), taskshed.remove_callback('x')});
is( as( 'mallory',
		q{BEGIN; SELECT taskshed.add_task('mallory.climb', kwargs => '{"command": ""}'); PREPARE TRANSACTION 'x'; COMMIT PREPARED 'y'}
	),
	'42704',
	'a prepared transaction that holds tasks');
is(as('victim', q{COMMIT PREPARED 'x'}),
	'42501', 'is committed by nobody else');
as('mallory', q{ROLLBACK PREPARED 'x'});

# Nobody can find an alias whose change is in the way of another role's.  (With
# one hash for both, some of so many names would meet.)
my @sessions = map {
	my $session = session($node);
	$session->query("SET SESSION AUTHORIZATION $_");
	$session
} ('mallory', 'victim');
my ($hers, $theirs) = split /\|/, $node->safe_psql(
	'postgres', q{
SET enable_nestloop = off;
WITH names AS (
	SELECT rolname, 'a' || i AS name, oid::bigint AS oid,
		(hashtext(('a' || i) COLLATE "C")::bigint + 4294967296) % 4294967296 AS hash
	FROM pg_roles, generate_series(1, 150000) AS i WHERE rolname IN ('mallory', 'victim')),
	combined AS (
	SELECT rolname, name, oid # ((hash + 2654435769 + (oid << 6) + (oid >> 2)) % 4294967296) AS hash FROM names)
SELECT m.name, v.name FROM combined m JOIN combined v USING (hash)
WHERE m.rolname = 'mallory' AND v.rolname = 'victim' LIMIT 1});
$sessions[0]
  ->query("BEGIN; SELECT taskshed.add_callback('$hers', 'mallory.climb')");
is( $sessions[1]->query(
		"SET lock_timeout = '5s'; SELECT taskshed.add_callback('$theirs', 'victim.report')"
	),
	'',
	"her alias $hers is not in the way of another's $theirs");
$sessions[0]->query('ROLLBACK');
$_->quit foreach @sessions;
as('victim', "SELECT taskshed.remove_callback('$theirs')");

# ------------------------------------------------------------------------
# Looking: functions and operators that tell what passes by them.

as( 'mallory', q{
CREATE FUNCTION mallory.leak(t anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
	RAISE LOG 'leaked to %: %', current_user, t;
	RETURN true;
END $$;
CREATE FUNCTION mallory.leaks(a text, b text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
	RAISE LOG 'leaked to %: %', current_user, a;
	RETURN true;
END $$;
CREATE OPERATOR mallory.=== (FUNCTION = mallory.leaks, LEFTARG = text, RIGHTARG = text, COMMUTATOR = OPERATOR(mallory.===), RESTRICT = eqsel, MERGES, HASHES);
CREATE VIEW mallory.v AS SELECT * FROM taskshed.tasks WHERE mallory.leak(task_id);
CREATE VIEW mallory.plain AS SELECT owner, task_id, kwargs FROM taskshed.tasks;
CREATE VIEW mallory.barred WITH (security_barrier) AS SELECT * FROM taskshed.runs WHERE mallory.leak(task_id);
GRANT SELECT ON ALL TABLES IN SCHEMA mallory TO PUBLIC});
my @looks = (
	'SELECT * FROM taskshed.tasks WHERE mallory.leak(kwargs)',
	'SELECT * FROM taskshed.tasks t WHERE mallory.leak(t)',
	'SELECT * FROM taskshed.tasks WHERE task_id OPERATOR(mallory.===) task_id',
	'SELECT * FROM _taskshed.task_details t WHERE mallory.leak(t)',
	'SELECT * FROM _taskshed.task_details WHERE mallory.leak(owner_oid) AND id > 0',
	'SELECT * FROM taskshed.runs r WHERE mallory.leak(r)',
	'SELECT * FROM taskshed.callbacks c WHERE mallory.leak(c)',
	'SELECT t.* FROM taskshed.tasks t JOIN pg_roles r ON mallory.leak(t.task_id) OR r.rolname = t.owner',
	'SELECT max(kwargs::text) FROM taskshed.tasks GROUP BY task_id HAVING mallory.leak(task_id)',
	'SELECT 1 / (length(kwargs::text) - length(kwargs::text)) FROM taskshed.tasks',
	'SELECT task_id::integer FROM taskshed.tasks',
	'SELECT * FROM taskshed.fetch_tasks() t WHERE mallory.leak(t)',
	'SELECT * FROM mallory.v',
	'SELECT * FROM mallory.barred',
	'EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM taskshed.tasks t WHERE mallory.leak(t)',
	"PREPARE p AS SELECT * FROM taskshed.tasks WHERE mallory.leak(task_id); EXECUTE p",
	'CREATE MATERIALIZED VIEW mallory.m AS SELECT * FROM taskshed.tasks WHERE mallory.leak(task_id)',
	'CREATE TABLE mallory.t AS SELECT * FROM taskshed.runs WHERE mallory.leak(task_id)',
	"DECLARE c CURSOR WITH HOLD FOR SELECT * FROM taskshed.tasks WHERE mallory.leak(task_id); FETCH ALL FROM c",
	'COPY (SELECT * FROM taskshed.tasks WHERE mallory.leak(task_id)) TO STDOUT'
);
my $log = -s $node->logfile;
foreach my $look (@looks)
{
	my $seen = as('mallory', $look);

	unlike($seen, qr/Xyzzy|victim|22012|22P02/, "$look shows nothing");
}
unlike(
	log_lines($node, qr/ leaked to/, $log),
	qr/Xyzzy|victim|tick|leaked to (?!mallory)/,
	'nothing has leaked');

# (What a view of hers calls is called by whoever reads the view.)
$log = -s $node->logfile;
$node->safe_psql('postgres', "SET ROLE $super; $looks[1]");
like(
	log_lines($node, qr/ leaked to/, $log),
	qr/leaked to $super: .*Xyzzy/,
	'... where there is something to see, it does');
is(as('mallory', 'SELECT * FROM mallory.plain'), '', 'a view of hers');
like(as('victim', 'SELECT * FROM mallory.plain'),
	qr/Xyzzy/, '... shows others what is theirs');
unlike(as('victim', 'SELECT * FROM mallory.plain'),
	qr/superusers/, '... and no more');
$node->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW mallory.m');
is(as('mallory', 'SELECT * FROM mallory.m'),
	'', 'a materialized view that a superuser refreshes');
unlike(
	as( 'watcher',
		'SELECT * FROM taskshed.tasks; SELECT * FROM _taskshed.task_details; SELECT * FROM taskshed.runs'
	),
	qr/Xyzzy|sorry/,
	'pg_read_all_stats sees no values');
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
as('victim',
	q{SELECT taskshed.add_task('public.hold', kwargs => '{"what": "Xyzzy"}', task_id => 'victims long run')}
);
await_blocked($node, 1);
$node->safe_psql(
	'postgres', q{
CREATE TABLE processes AS SELECT pid, backend_type, usename FROM pg_stat_activity WHERE backend_type LIKE 'taskshed%';
GRANT SELECT ON processes TO PUBLIC});
foreach my $look (
	'pg_stat_activity', 'pg_locks',
	'taskshed.status',  'taskshed._status()',
	'taskshed.tasks',   'taskshed.runs',
	'pg_cursors',       'pg_prepared_statements')
{
	unlike(
		as('mallory', "SELECT * FROM $look"),
		qr/Xyzzy|report|hold|tick|long run/,
		"$look during others' runs");
}

# ------------------------------------------------------------------------
# Processes.

foreach my $function ('pg_cancel_backend', 'pg_terminate_backend',
	'pg_log_backend_memory_contexts')
{
	my $what = q{pid FROM processes WHERE usename IS DISTINCT FROM 'mallory'};

	is(as('mallory', "SELECT $function(min(pid)) FROM processes WHERE $_"),
		'42501', "$function: $_")
	  foreach (
		q{backend_type = 'taskshed launcher'},
		q{backend_type = 'taskshed scheduler'},
		q{backend_type = 'taskshed worker' AND usename = 'victim'},
		qq{backend_type = 'taskshed worker' AND usename = '$super'});
}

# ------------------------------------------------------------------------
# What a callback may not do.  Each runs in a worker as climb(command): the
# SQLSTATE and who it was then is the result.

my @climbs = (
	[ 'RESET ROLE',                                '00000' ],
	[ 'SET ROLE NONE',                             '00000' ],
	[ 'SET ROLE mallory',                          '00000' ],
	[ "SET ROLE $super",                           '42501' ],
	[ "SET LOCAL ROLE $super",                     '42501' ],
	[ 'SET ROLE victim',                           '42501' ],
	[ 'RESET SESSION AUTHORIZATION',               '00000' ],
	[ 'SET SESSION AUTHORIZATION DEFAULT',         '00000' ],
	[ "SET SESSION AUTHORIZATION $super",          '42501' ],
	[ 'SET LOCAL SESSION AUTHORIZATION victim',    '42501' ],
	[ "SELECT set_config('role', '$super', true)", '42501' ],
	[
		"SELECT set_config('session_authorization', '$super', false)",
		'42501'
	],
	[ 'SET is_superuser = on',                                   '55P02' ],
	[ 'SET session_replication_role = replica',                  '42501' ],
	[ 'RESET ALL',                                               '00000' ],
	[ 'SET row_security = off',                                  '00000' ],
	[ 'SET taskshed.enabled = off',                              '42501' ],
	[ "SET taskshed.timeout = '1 ms'",                           '42501' ],
	[ 'SET taskshed.max_workers = 1',                            '42501' ],
	[ 'SET taskshed.history_max_text = 0',                       '42501' ],
	[ "SELECT set_config('taskshed.log_failures', 'off', true)", '42501' ],
	[ "SELECT set_config('taskshed.task_id', 'target', false)",  '42602' ],
	[ 'ALTER ROLE mallory SET taskshed.timeout = 1',             '42501' ],
	[ 'ALTER ROLE mallory SUPERUSER',                            '42501' ],
	[ "ALTER ROLE mallory SET role = $super",                    '00000' ],
	[ "GRANT $super TO mallory",                                 '42501' ],
	[ 'GRANT victim TO mallory',                                 '42501' ],
	[ 'CREATE ROLE more SUPERUSER',                              '42501' ],
	[ 'DROP ROLE victim',                                        '42501' ],
	[ 'CREATE EXTENSION plpgsql',                                '42710' ],
	[
		q{CREATE FUNCTION mallory.c() RETURNS void LANGUAGE c AS '$libdir/taskshed', 'ts_start_scheduler'},
		'42501'
	],
	[
		q{CREATE FUNCTION mallory.i() RETURNS text LANGUAGE internal AS 'pg_read_file_all'},
		'42501'
	],
	[ q{LOAD '/tmp/library'},                      '42501' ],
	[ q{SELECT pg_read_file('PG_VERSION')},        '42501' ],
	[ q{SELECT pg_ls_dir('.')},                    '42501' ],
	[ q{SELECT lo_import('/etc/passwd')},          '42501' ],
	[ q{SELECT lo_export(lo_creat(-1), '/tmp/x')}, '42501' ],
	[ q{COPY mallory.caught TO PROGRAM 'cat'},     '42501' ],
	[ q{COPY mallory.caught FROM '/etc/passwd'},   '42501' ],
	[ q{COPY mallory.caught TO STDOUT},            '0A000' ],
	[ 'SELECT pg_reload_conf()',                   '42501' ],
	[
		q{SELECT pg_create_logical_replication_slot('s', 'pgoutput')},
		'42501'
	],
	[ 'SELECT pg_export_snapshot()',         '25001' ],
	[ 'LISTEN target',                       '0A000' ],
	[ 'NOTIFY target',                       '00000' ],
	[ 'COMMIT',                              '2D000|0A000' ],
	[ q{PREPARE TRANSACTION 'x'},            '2D000|0A000' ],
	[ q{CALL taskshed.execute('SELECT 1')},  '42501' ],
	[ q{SELECT taskshed.try_task('target')}, '42501' ],
	[
		q{SELECT taskshed.add_task('mallory.climb', owner => 'victim')},
		'42501'
	],
	[ 'SELECT mallory.dressed()', '42501' ],
	[
		"SELECT pg_terminate_backend(min(pid)) FROM public.processes WHERE backend_type = 'taskshed scheduler'",
		'42501'
	],);
my @climb_outs = (
	'RESET ROLE',
	'RESET SESSION AUTHORIZATION',
	'SET SESSION AUTHORIZATION DEFAULT',
	'SET ROLE NONE');

sub schedule_climb
{
	my ($procedure, $task_id, $command) = @_;

	return
	  "SELECT taskshed.add_task('mallory.$procedure', kwargs => jsonb_build_object('command', \$c\$$command\$c\$), task_id => \$c\$$task_id\$c\$);\n";
}
$node->safe_psql('postgres', 'ALTER ROLE mallory RESET ALL');
as( 'mallory',
	join('',
		(map { schedule_climb('climb',     "in: $_->[0]", $_->[0]) } @climbs),
		(map { schedule_climb('climb_out', "out: $_",     $_) } @climb_outs))
);
await_no_task($node, 'in: %');
await_no_task($node, 'out: %');

sub result_of
{
	my ($task_id) = @_;

	return $node->safe_psql('postgres',
		"SELECT coalesce(result, status || ' ' || coalesce(message, '')) FROM taskshed.runs WHERE task_id = \$t\$$task_id\$t\$ ORDER BY finished_at DESC, run_id DESC LIMIT 1"
	);
}
like(
	result_of("in: $_->[0]"),
	qr{^(?:$_->[1]) mallory/mallory$},
	"in a callback: $_->[0]") foreach (@climbs);
is( result_of("out: $_"),
	'00000 mallory/mallory 00000 mallory/mallory',
	"in a procedure that ends transactions: $_") foreach (@climb_outs);
is($node->safe_psql('postgres', 'SELECT worn_by FROM crown'),
	'nobody', 'the crown is nobody\'s');

# (The same things are possible for those who may.)
like(
	$node->safe_psql(
		'postgres', q{
	BEGIN; GRANT ALL ON SCHEMA mallory TO PUBLIC; SELECT mallory.climb('SET ROLE victim'); ROLLBACK;
	SELECT mallory.climb('SET SESSION AUTHORIZATION victim'); RESET SESSION AUTHORIZATION; UPDATE crown SET worn_by = 'nobody';
	SELECT mallory.climb('SELECT pg_ls_dir(''.'')'); UPDATE crown SET worn_by = 'nobody'}
	),
	qr{00000 read $super/victim\n00000 read victim/victim\n00000 crowned read $super/$super},
	'a superuser climbs');
$node->safe_psql('postgres', 'ALTER ROLE mallory RESET ALL');

# ------------------------------------------------------------------------
# Code that is called when the callback is over, and what a session keeps.

is( as( 'mallory', q{
CREATE FUNCTION mallory.catch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO mallory.caught VALUES (TG_ARGV[0], session_user || '/' || current_user || ' ' || mallory.climb('RESET ROLE'));
	RETURN NULL;
END $$;
CREATE TABLE mallory.deferring (n integer);
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON mallory.deferring DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION mallory.catch('deferred');
CREATE FUNCTION mallory.note_it(what text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO mallory.caught VALUES (what, mallory.climb('RESET SESSION AUTHORIZATION'));
	RETURN what;
END $$;
CREATE FUNCTION mallory.defers() RETURNS void LANGUAGE sql AS 'INSERT INTO mallory.deferring VALUES (1)';
CREATE FUNCTION mallory.holds() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT mallory.note_it(''held'')';
END $$;
CREATE FUNCTION mallory.constant(what text) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	RAISE LOG 'sprung by %/%: constant %', session_user, current_user, what;
	RETURN 1;
END $$;
-- Tables that are emptied and dropped at the commit, with code in their indexes
CREATE FUNCTION mallory.on_commit() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMP TABLE task (n integer) ON COMMIT DELETE ROWS;
	CREATE INDEX ON pg_temp.task ((mallory.constant('a') + n)) WHERE mallory.constant('b') = 1;
	INSERT INTO pg_temp.task VALUES (1);
	CREATE TEMP TABLE alarm ON COMMIT DROP AS SELECT mallory.note_it('dropped');
END $$;
-- Whatever a later run, or the bookkeeping, could take for something else
CREATE FUNCTION mallory.shadows() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY ARRAY['task', 'alarm', 'edge', 'callback', 'tasks', 'run_0', 'history', 'task_details', 'pg_class',
		'pg_proc', 'pg_type', 'pg_authid', 'secret', 'ledger'] LOOP
		EXECUTE format('CREATE TEMP TABLE IF NOT EXISTS %I (x text)', name);
	END LOOP;
	CREATE TEMP SEQUENCE task_seq;
	CREATE TEMP VIEW runs AS SELECT 'forged' AS status;
	CREATE FUNCTION pg_temp.note(what text, planned timestamptz DEFAULT NULL) RETURNS void LANGUAGE sql AS
		'SELECT mallory.spring(''pg_temp.note'')';
	PREPARE note AS SELECT 1;
	PERFORM pg_advisory_lock(4711);
	PERFORM set_config('search_path', 'pg_temp, mallory', false);
END $$;
CREATE TABLE mallory.guarded (n integer);
INSERT INTO mallory.guarded VALUES (1);
CREATE POLICY p ON mallory.guarded USING (mallory.note_it('policy') IS NOT NULL);
ALTER TABLE mallory.guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE mallory.guarded FORCE ROW LEVEL SECURITY;
CREATE FUNCTION mallory.reads_guarded() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM mallory.guarded';
CREATE FUNCTION mallory.left_over() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN concat_ws(' ', (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
		(SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()),
		(SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors WHERE name = 'held'),
		(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), current_setting('search_path'));
END $$;
ALTER ROLE mallory SET role = 'victim';
SELECT taskshed.add_task('mallory.' || f, task_id => 'after: ' || f) FROM unnest(ARRAY['defers', 'holds', 'on_commit', 'shadows', 'reads_guarded']) AS f;
ALTER ROLE mallory RESET ALL}),
	join("\n",
		map { "after: $_" } qw(defers holds on_commit shadows reads_guarded)),
	'what remains of a run');
await_no_task($node, 'after: %');
as('mallory',
	q{SELECT taskshed.add_task('mallory.left_over', task_id => 'left over')});
await_no_task($node, 'left over');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(DISTINCT what || ' ' || who, ', ' ORDER BY what || ' ' || who) FROM mallory.caught}
	),
	'deferred mallory/mallory 00000 mallory/mallory, dropped 00000 mallory/mallory, held 00000 mallory/mallory, policy 00000 mallory/mallory',
	'deferred triggers, held cursors, policies: all as mallory');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(DISTINCT status, ' ') FROM taskshed.runs WHERE task_id LIKE 'after: %'}
	),
	'succeeded',
	'all have been recorded');
like(
	result_of('left over'),
	qr/^0 0 0 0 0 "\$user", public$/,
	'nothing is left for the next run');

# ------------------------------------------------------------------------
# Traps on the way of others: functions and operators that are found before
# the server's own, with the search_path that database and roles have now.

is( as( 'mallory', q{
DO $do$
DECLARE
	o record;
	n integer := 0;
BEGIN
	FOR o IN SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result FROM pg_operator
		WHERE oprkind = 'b' AND oprname IN ('=', '<>', '<', '>', '<=', '>=', '+', '-', '||', '~~', '->>')
		AND NOT (oprleft::regtype::text || oprright::regtype::text) ~ 'any|internal|geo|path|box'
	LOOP
		n := n + 1;
		EXECUTE format('CREATE FUNCTION mallory.trap_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS
			$$BEGIN PERFORM mallory.spring(%L); RETURN NULL; END$$', n, o.l, o.r, o.result,
			format('%s %s %s', o.l, o.oprname, o.r));
		EXECUTE format('CREATE OPERATOR mallory.%s (FUNCTION = mallory.trap_%s, LEFTARG = %s, RIGHTARG = %s)', o.oprname, n, o.l, o.r);
	END LOOP;
	FOR o IN SELECT proname, pg_get_function_identity_arguments(oid) AS arguments, prorettype::regtype AS result FROM pg_proc
		WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset AND proname IN (
			'now', 'clock_timestamp', 'pg_has_role', 'current_database', 'format', 'length', 'jsonb_typeof', 'set_config',
			'current_setting', 'pg_backend_pid', 'text', 'timestamptz', 'int4', 'name', 'jsonb_array_elements', 'hashtext', 'lower',
			'nextval', 'quote_ident', 'coalesce', 'array_length', 'to_jsonb', 'has_schema_privilege')
			AND pronargs < 4 AND prorettype::regtype::text !~ 'internal|any'
			AND pg_get_function_identity_arguments(oid) !~ 'internal|any|VARIADIC'
	LOOP
		EXECUTE format('CREATE FUNCTION mallory.%I(%s) RETURNS %s LANGUAGE plpgsql AS
			$$BEGIN PERFORM mallory.spring(%L); RETURN NULL; END$$', o.proname, o.arguments, o.result, o.proname);
	END LOOP;
	FOREACH o.proname IN ARRAY ARRAY['jsonb_to_record', 'count', 'min', 'unnest'] LOOP
		EXECUTE format('CREATE FUNCTION mallory.%I(x jsonb) RETURNS jsonb LANGUAGE plpgsql AS
			$$BEGIN PERFORM mallory.spring(%L); RETURN NULL; END$$', o.proname, o.proname);
	END LOOP;
END $do$;
CREATE TABLE mallory.tasks AS SELECT 'a forged task' AS task_id;
CREATE TABLE mallory.pg_roles AS SELECT 0::oid AS oid, 'forged'::name AS rolname;
CREATE TABLE mallory.task AS SELECT 1 AS id;
CREATE TABLE mallory.alarm AS SELECT 1 AS id;
CREATE TYPE mallory.jsonb AS (x text);
CREATE TYPE mallory.task_execution_time AS (task_id text, run_at text);
CREATE DOMAIN mallory.text AS pg_catalog.text CHECK (mallory.spring('domain text') IS NULL);
CREATE DOMAIN mallory.timestamptz AS pg_catalog.timestamptz CHECK (mallory.spring('domain timestamptz') IS NULL);
CREATE COLLATION mallory."C" FROM "POSIX";
CREATE CAST (mallory.jsonb AS pg_catalog.jsonb) WITH INOUT AS IMPLICIT;
GRANT ALL ON ALL TABLES IN SCHEMA mallory TO PUBLIC;
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 300 FROM pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) 'mallory'::regnamespace}
	),
	't',
	'traps are set');
my $path = 'mallory, pg_temp, public, pg_catalog';
$log = -s $node->logfile;
as('victim',
	"SET search_path = $path; SELECT now(), 'a'::pg_catalog.text = 'b'::pg_catalog.text"
);
like(
	log_lines($node, qr/ sprung by victim/, $log),
	qr/: now\n.*: text = text/,
	'traps spring');

$node->safe_psql(
	'postgres', qq{
ALTER DATABASE postgres SET search_path = $path;
ALTER ROLE victim SET search_path = $path;
ALTER ROLE "$super" SET search_path = $path;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type IN ('taskshed scheduler', 'taskshed launcher')}
);
$holder->query('SELECT pg_advisory_unlock(1)');
await(
	$node,
	q{SELECT state = 'active' FROM taskshed.status WHERE database = current_database()},
	'the scheduler is back');
$log = -s $node->logfile;

foreach my $role ('victim', $super)
{
	is( as( $role, qq{
SET search_path = $path;
SELECT taskshed.add_task('victim.report', '2100-01-01', '{"secret": "Xyzzy"}', task_id => 'walk', every => '1 day', timezone => 'Europe/Berlin', group_id => 'walks');
SELECT taskshed.add_tasks('[{"callback": "public.note", "run_at": "2100-01-01", "kwargs": {"what": "walk"}, "task_id": "walks"}]');
SELECT taskshed.add_task('public.note', '2100-01-01', '{"what": "x", "planned": "2100-01-01"}', task_id => 'dated');
SELECT (taskshed.fetch_task('walk')).task_id;
SELECT task_id FROM taskshed.fetch_tasks(ARRAY['walk', 'walks']);
SELECT task_id FROM taskshed.fetch_tasks(group_id => 'walks');
SELECT taskshed.pause_tasks(ARRAY['walk', 'walks']), taskshed.resume_tasks(group_id => 'walks'), taskshed.resume_task('walks');
SELECT taskshed.update_execution_time('walk', '2100-01-02'), taskshed.update_execution_times(ARRAY[('walks', '2100-01-02')]::taskshed.task_execution_time[]);
SELECT taskshed.try_task('walk'), taskshed.cancel_task('walk'), taskshed.retry_task('walk');
CREATE TEMP TABLE seen AS SELECT * FROM taskshed.tasks;
CREATE TEMP TABLE runs AS SELECT * FROM taskshed.runs;
CREATE TEMP TABLE others AS SELECT * FROM taskshed.callbacks CROSS JOIN taskshed.status;
CREATE TEMP TABLE wakeups AS SELECT * FROM taskshed.next_wakeup();
SELECT taskshed.add_callback('walk', 'victim.report'), taskshed.remove_callback('walk');
SELECT taskshed.remove_tasks(group_id => 'walks'), taskshed.remove_tasks(ARRAY['walks', 'dated'])}
		),
		"walk\n{walks}\ndated\nwalk\nwalk\nwalks\nwalk\n2|1|t\nt|1\nreported|f|f\n|t\n1|2",
		"$role walks among the traps");
	as( $role, q{
SELECT taskshed.add_task('public.note', kwargs => jsonb_build_object('what', current_user || ' walks', 'planned', now()), task_id => 'walk');
SELECT taskshed.add_task('victim.fails', kwargs => '{"secret": "Xyzzy"}', task_id => 'stumble');
SELECT taskshed.add_task('mallory.no_such', task_id => 'miss', validate => false);
SELECT taskshed.add_task('public.note', kwargs => '{"what": "recurs"}', task_id => 'recur', every => '20 ms', max_runs => 5);}
	);
}
await_no_task($node, $_) foreach ('walk', 'recur');
await(
	$node,
	q{SELECT count(*) = 4 FROM taskshed.tasks WHERE task_id IN ('stumble', 'miss') AND state = 'failed'},
	'tasks fail among the traps');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(what || ' ' || who, ', ' ORDER BY what) FROM ledger WHERE what LIKE '% walks'}
	),
	"$super walks $super/$super, victim walks victim/victim",
	'others\' tasks run');
is(log_lines($node, qr/ sprung by/, $log),
	'', 'none of the traps has sprung, in the scheduler and workers either');
$node->safe_psql('postgres',
	qq{ALTER DATABASE postgres RESET ALL; ALTER ROLE victim RESET ALL; ALTER ROLE "$super" RESET ALL}
);
as($_,
	q{SELECT taskshed.remove_tasks(ARRAY['stumble', 'miss', 'walk', 'recur'])}
) foreach ('victim', $super);

# ------------------------------------------------------------------------
# Scheduling for her, or a function of hers, runs nothing of hers.

is( as( 'mallory', q{
CREATE FUNCTION mallory.check_it(x anyelement) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM mallory.spring('check');
	RETURN true;
END $$;
CREATE FUNCTION mallory.default_it() RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM mallory.spring('default');
	RETURN 1;
END $$;
CREATE DOMAIN mallory.d AS integer CHECK (mallory.check_it(VALUE));
CREATE DOMAIN mallory.d_of_d AS mallory.d;
CREATE DOMAIN mallory.d_of_array AS mallory.d[];
CREATE TYPE mallory.c AS (d mallory.d);
CREATE TYPE mallory.c_of_c AS (c mallory.c[]);
CREATE DOMAIN mallory.d_of_c AS mallory.c CHECK (mallory.check_it((VALUE).d));
CREATE TYPE mallory.r AS RANGE (SUBTYPE = mallory.d_of_d, MULTIRANGE_TYPE_NAME = mallory.mr);
CREATE FUNCTION mallory.f_d(x mallory.d) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_dd(x mallory.d_of_d) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_a(x mallory.d[]) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_da(x mallory.d_of_array) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_c(x mallory.c) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_cc(x mallory.c_of_c) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_dc(x mallory.d_of_c) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_r(x mallory.r) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_mr(x mallory.mr) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_v(VARIADIC x mallory.d[]) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_default(x integer DEFAULT mallory.default_it()) RETURNS text LANGUAGE sql AS $$ SELECT 'f' $$;
CREATE FUNCTION mallory.f_inline() RETURNS integer IMMUTABLE LANGUAGE sql AS $$ SELECT mallory.default_it() $$;
SELECT 'set'}),
	'set',
	'types with traps');
my @values = (
	[ 'f_d',  '1' ],
	[ 'f_dd', '1' ],
	[ 'f_a',  '[1]' ],
	[ 'f_da', '[1]' ],
	[ 'f_c',  '{"d": 1}' ],
	[ 'f_cc', '{"c": [{"d": 1}]}' ],
	[ 'f_dc', '{"d": 1}' ],
	[ 'f_r',  '"[1,2]"' ],
	[ 'f_mr', '"{[1,2]}"' ],
	[ 'f_v',  '[1]' ],
	['f_default'],
	['f_inline']);
foreach my $value (@values)
{
	my ($function, $x) = @$value;
	my $kwargs = defined $x ? qq({"x": $x}) : '{}';
	my $add =
	  qq{taskshed.add_task('mallory.$function', '2100-01-01', '$kwargs', task_id => 'trapped'};

	$log = -s $node->logfile;
	is(as($super, "SELECT $add, owner => 'mallory')"),
		'trapped', "$function, scheduled for mallory by a superuser");
	is(as($super,   "SELECT $add)"), 'trapped', '... for himself');
	is(as('victim', "SELECT $add)"), 'trapped', '... by another role');
	as($_, q{SELECT taskshed.update_execution_time('trapped', '2100-01-02')})
	  foreach ($super, 'victim');
	is(log_lines($node, qr/ sprung by/, $log), '', '... springs nothing');
	like(as('mallory', q{SELECT taskshed.try_task('trapped')}),
		qr/^[f1]$/, '... when she tries it');
	like(
		log_lines($node, qr/ sprung by/, $log),
		qr{sprung by mallory/mallory},
		'... it does');
}
as($_, q{SELECT taskshed.remove_task('trapped')})
  foreach ('mallory', 'victim', $super);

# ------------------------------------------------------------------------
# Code of hers that others call without meaning to: in maintenance.

my @calls = (
	q{add_task('mallory.climb', kwargs => '{"command": ""}')},
	q{add_tasks('[]')},
	q{pause_tasks('{x}')},
	q{pause_task('x')},
	q{resume_tasks('{x}')},
	q{resume_task('x')},
	q{remove_tasks('{x}')},
	q{remove_task('x')},
	q{remove_all_tasks()},
	q{cancel_tasks('{x}')},
	q{cancel_task('x')},
	q{retry_tasks('{x}')},
	q{retry_task('x')},
	q{run_tasks('{x}')},
	q{update_execution_time('x', '2100-01-01')},
	q{update_execution_times('{}')},
	q{add_callback('x', 'mallory.climb')},
	q{remove_callback('x')});
my $array = join ', ', map { "\$c\$$_\$c\$" } @calls;
is( as( 'mallory', qq{
CREATE FUNCTION mallory.index_it(n integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT n';
CREATE TABLE mallory.indexed (n integer);
INSERT INTO mallory.indexed SELECT generate_series(1, 10);
CREATE INDEX indexed_n ON mallory.indexed (mallory.index_it(n));
CREATE OR REPLACE FUNCTION mallory.index_it(n integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS \$\$
DECLARE
	call text;
	state text;
BEGIN
	FOREACH call IN ARRAY ARRAY[$array] LOOP
		state := '00000';
		BEGIN
			EXECUTE 'SELECT taskshed.' || call;
		EXCEPTION WHEN OTHERS THEN
			state := SQLSTATE;
		END;
		RAISE LOG 'maintenance by %: % %', current_user, state, call;
	END LOOP;
	RETURN n;
END \$\$;
CREATE MATERIALIZED VIEW mallory.refreshed AS SELECT mallory.index_it(1) WITH NO DATA;
SELECT 'set'}),
	'set',
	'an index with a trap');
foreach my $maintenance (
	'ANALYZE mallory.indexed',
	'VACUUM (FULL) mallory.indexed',
	'VACUUM (ANALYZE) mallory.indexed',
	'REINDEX TABLE mallory.indexed',
	'CLUSTER mallory.indexed USING indexed_n',
	'CREATE INDEX ON mallory.indexed ((mallory.index_it(n) + 1))',
	'REFRESH MATERIALIZED VIEW mallory.refreshed')
{
	$log = -s $node->logfile;
	$node->safe_psql('postgres', $maintenance);
	my $lines = log_lines($node, qr/ maintenance by/, $log);
	like(
		$lines,
		qr/maintenance by mallory: 42501/,
		"$maintenance by a superuser calls her code as mallory");
	unlike(
		$lines,
		qr/maintenance by (?!mallory: 42501)/,
		'... and none of the calls is let through');
}
is(as('mallory', 'SELECT count(*) FROM taskshed.tasks'),
	'0', 'nothing has been scheduled');

# ------------------------------------------------------------------------
# Names.

my $nasty = q{'"; DROP TABLE public.crown; -- } . ('€' x 10) . 'x';
(my $quoted   = $nasty)                  =~ s/"/""/g;
(my $literal  = $nasty)                  =~ s/'/''/g;
(my $function = qq("$quoted"."$quoted")) =~ s/'/''/g;
$node->safe_psql(
	'postgres', qq{
CREATE ROLE "$quoted" LOGIN;
GRANT USAGE ON SCHEMA taskshed TO "$quoted";
CREATE SCHEMA "$quoted" AUTHORIZATION "$quoted";
SET ROLE "$quoted";
CREATE FUNCTION "$quoted"."$quoted"("$quoted" text) RETURNS text LANGUAGE sql AS 'SELECT \$1';
SELECT taskshed.add_callback('$literal', '$function');
SELECT taskshed.add_task('$function', kwargs => jsonb_build_object('$literal', 'done'), task_id => '$literal', group_id => '$literal');
SELECT taskshed.add_task('$literal', kwargs => jsonb_build_object('$literal', 'done'), task_id => '$literal 2');
RESET ROLE;
SELECT taskshed.pause_tasks(ARRAY['$literal'], owner => '$literal'), taskshed.resume_tasks(group_id => '$literal', owner => '$literal')}
);
is(length($nasty) > 0 && do { use bytes; length($nasty) },
	63, 'a name of 63 bytes');
await(
	$node,
	qq{SELECT count(*) = 2 FROM taskshed.runs WHERE owner = '$literal' AND result = 'done'},
	'a role, schema, function, argument, task and alias of such a name');
is($node->safe_psql('postgres', 'SELECT worn_by FROM crown'),
	'nobody', 'the crown is still there');

# A line of the log that looks like another's
$log = -s $node->logfile;
as( 'mallory', q{
CREATE FUNCTION mallory.forge() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE E'one\nFORGED: line\r\nFORGED: line' USING DETAIL = E'two\nFORGED: line', HINT = E'three\nFORGED: line';
END $$;
SELECT taskshed.add_task('mallory.forge', task_id => E'forge\nFORGED: line')}
);
await(
	$node,
	q{SELECT state = 'failed' FROM taskshed.tasks WHERE task_id LIKE 'forge%'},
	'a task with line ends in its name and error has failed');
is(log_lines($node, qr/^FORGED/, $log), '', 'no line of the log is forged');
like(
	log_lines($node, qr/FORGED/, $log),
	qr/task "forge FORGED: line" of role "mallory"/,
	'... what it would have been is in one');

# ------------------------------------------------------------------------
# Roles that change.

# Membership that is revoked takes back all but what was scheduled with it.
$node->safe_psql('postgres', 'GRANT victim TO mallory');
is( as( 'mallory',
		q{SELECT taskshed.add_task('public.note', now() + interval '1 hour', '{"what": "as victim"}', task_id => 'inherited', owner => 'victim')}
	),
	'inherited',
	'a member schedules as victim');
$node->safe_psql('postgres', 'REVOKE victim FROM mallory');
is(as('mallory', $_), '42501', "no member any more: $_")
  foreach (
	q{SELECT taskshed.add_task('public.note', kwargs => '{"what": "as victim"}', task_id => 'inherited', owner => 'victim')},
	q{SELECT taskshed.update_execution_time('inherited', now(), 'victim')},
	q{SELECT taskshed.remove_task('inherited', 'victim')});
is( as('mallory', q{SELECT count(*) FROM taskshed.tasks}),
	as('mallory', q{SELECT count(*) FROM taskshed.fetch_tasks()}),
	'... she sees her own only');
is(as('victim', q{SELECT taskshed.remove_task('inherited')}),
	't', '... victim has it');
SKIP:
{
	skip 'grants have no options before 16', 3 if $version < 160000;
	foreach my $options (
		'INHERIT TRUE, SET FALSE',
		'INHERIT FALSE, SET FALSE',
		'ADMIN TRUE, INHERIT FALSE, SET FALSE')
	{
		$node->safe_psql('postgres', "GRANT victim TO mallory WITH $options");
		is( as( 'mallory',
				q{SELECT taskshed.add_task('public.note', kwargs => '{"what": "x"}', owner => 'victim')}
			),
			'42501',
			"a member WITH $options");
		$node->safe_psql('postgres', 'REVOKE victim FROM mallory');
	}
}

# A function of victim's that schedules for whoever calls it.
as( 'victim', q{
CREATE FUNCTION victim.schedules() RETURNS text SECURITY DEFINER SET search_path = victim, pg_temp LANGUAGE sql AS
	$$ SELECT taskshed.add_task('report', '2100-01-01', '{"secret": "Xyzzy"}', task_id => 'by definer') $$;
GRANT USAGE ON SCHEMA victim TO PUBLIC;});
as( 'mallory', q{
CREATE FUNCTION mallory.report(secret text) RETURNS text LANGUAGE sql AS $$ SELECT 'hers' $$;
SET search_path = mallory, public;
SELECT victim.schedules()});
is( $node->safe_psql(
		'postgres',
		q{SELECT owner, callback FROM taskshed.tasks WHERE task_id = 'by definer'}
	),
	'victim|victim.report',
	'a function with SECURITY DEFINER finds what its own search_path says');
as('victim',
	q{SELECT taskshed.remove_task('by definer'); REVOKE USAGE ON SCHEMA victim FROM PUBLIC}
);
is(as('mallory', q{SELECT count(taskshed.try_task('by definer'))}),
	'42501', '... and she cannot try it');

# A superuser with a warm worker becomes one no more.
$node->safe_psql(
	'postgres', q{
CREATE ROLE boss SUPERUSER LOGIN;
GRANT USAGE ON SCHEMA taskshed TO boss;
CREATE FUNCTION public.warm() RETURNS void LANGUAGE sql AS ''});
as('boss', q{SELECT taskshed.add_task('public.warm', task_id => 'warm')});
await_no_task($node, 'warm');
$node->safe_psql('postgres', 'ALTER ROLE boss NOSUPERUSER');
as( 'boss', qq{
SELECT taskshed.add_task('mallory.climb', kwargs => '{"command": "SET SESSION AUTHORIZATION \\"$super\\""}', task_id => 'dethroned')}
);
await_no_task($node, 'dethroned');
is( result_of('dethroned'),
	'42501 boss/boss',
	'a superuser that has become none cannot be another');
is($node->safe_psql('postgres', 'SELECT worn_by FROM crown'),
	'nobody', '... nor do what only superusers do');
$node->safe_psql('postgres', q{UPDATE crown SET worn_by = 'nobody'});

# A role that is dropped while its callback runs
my $dropped_by = session($node);
$node->safe_psql('postgres',
	'CREATE ROLE leaver LOGIN; GRANT USAGE ON SCHEMA taskshed TO leaver');
$holder->query('SELECT pg_advisory_lock(2)');
as('leaver',
	q{SELECT taskshed.add_task('public.hold', kwargs => '{"what": "leaver", "lock": 2}', task_id => 'leaving')}
);
await_blocked($node, 1, 2);
$dropped_by->query('DROP OWNED BY leaver; DROP ROLE leaver');
await_blocked($node, 0, 2);
$holder->query('SELECT pg_advisory_unlock(2)');
$dropped_by->quit;
await_no_task($node, 'leaving');

# ------------------------------------------------------------------------
# Taking all there is: while mallory does this, the others are on time.

$node->safe_psql('postgres',
	'CREATE ROLE quitter LOGIN; GRANT USAGE ON SCHEMA taskshed TO quitter; ALTER ROLE quitter SET exit_on_error = on'
);
is( as( 'mallory', q{
CREATE SEQUENCE mallory.forks;
CREATE FUNCTION mallory.fails() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'failed'; END $$;
CREATE FUNCTION mallory.fork() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..2 LOOP
		IF nextval('mallory.forks') < 1000 THEN
			PERFORM taskshed.add_task('mallory.fork', group_id => 'forks');
		END IF;
	END LOOP;
END $$;
CREATE FUNCTION mallory.floods() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..20000 LOOP
		RAISE NOTICE 'notice %', i;
		PERFORM pg_notify('flood', i::text);
	END LOOP;
END $$;
CREATE FUNCTION mallory.huge() RETURNS text LANGUAGE sql AS $$ SELECT repeat('x', 20000000) $$;
CREATE FUNCTION mallory.huge_error() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RAISE '%', repeat('x', 20000000) USING DETAIL = repeat('y', 20000000), HINT = repeat('z', 20000000);
END $$;
CREATE FUNCTION mallory.stays() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM pg_sleep(600);
		EXCEPTION WHEN query_canceled THEN
			NULL;
		END;
	END LOOP;
END $$;
CREATE FUNCTION mallory.quits() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_terminate_backend(pg_backend_pid());
	PERFORM pg_sleep(600);
END $$;
SELECT 'set'}),
	'set',
	'a flood');
my $greedy = session($node);
$greedy->query('SET SESSION AUTHORIZATION mallory');
$greedy->query(
	q{SELECT count(taskshed.add_task('mallory.fails', now() - interval '1 s', task_id => 'blocked ' || i)) FROM generate_series(1, 100) AS i}
);
await(
	$node,
	q{SELECT count(*) = 100 FROM taskshed.tasks WHERE task_id LIKE 'blocked %' AND state = 'failed'},
	'some have failed');
$greedy->query(
	q{BEGIN; SELECT count(taskshed.retry_task('blocked ' || i)) FROM generate_series(1, 100) AS i}
);
my $since = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
$log = -s $node->logfile;
as( 'mallory', q{
SELECT taskshed.add_task('mallory.stays', task_id => 'stays', timeout => '0.2 s');
SELECT taskshed.add_task('mallory.quits', task_id => 'quits');
SELECT taskshed.add_task('mallory.fork', group_id => 'forks');
SELECT taskshed.add_task('mallory.floods', task_id => 'floods');
SELECT taskshed.add_task('mallory.huge', task_id => 'huge');
SELECT taskshed.add_task('mallory.huge_error', task_id => 'huge error');
SELECT count(taskshed.add_task('mallory.fails', task_id => 'fails ' || i)) FROM generate_series(1, 1000) AS i}
);
as('quitter',
	q{SELECT taskshed.add_task('mallory.fails', task_id => 'exits ' || i) FROM generate_series(1, 2) AS i}
);
await(
	$node, q{
	SELECT count(*) = 1000 FROM taskshed.tasks WHERE task_id LIKE 'fails %' AND state = 'failed'},
	'1,000 tasks have failed');
await(
	$node, q{
	SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE group_id = 'forks')
		AND (SELECT last_value >= 1000 FROM mallory.forks)},
	'1,000 tasks that schedule tasks have run');
await_no_task($node, 'floods');
await_no_task($node, 'huge');
await_state($node, $_, 'failed')
  foreach ('huge error', 'stays', 'quits', 'exits 1', 'exits 2');
is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(task_id || ' ' || status || ' ' || CASE WHEN task_id LIKE 'huge%' THEN
			greatest(length(result), length(message), length(detail), length(hint)) <= 1024 END::text, ', ' ORDER BY task_id)
		FROM taskshed.runs WHERE task_id LIKE 'huge%'}),
	'huge succeeded true, huge error failed true',
	'huge results and errors are cut');
is( $node->safe_psql(
		'postgres',
		q{SELECT max(length(last_error)) <= 2048 FROM taskshed.tasks}),
	't',
	'... in the task, too');
is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(DISTINCT task_id || ' ' || last_status, ', ' ORDER BY task_id || ' ' || last_status)
		FROM taskshed.tasks WHERE task_id IN ('stays', 'quits') OR task_id LIKE 'exits%'}
	),
	'exits 1 failed, exits 2 failed, quits interrupted, stays timeout',
	'what swallows cancels or ends its worker has ended itself; exit_on_error does not count'
);
$greedy->query('ROLLBACK');
$greedy->quit;
note('the others\' lag meanwhile: '
	  . lag_of_ledger($node, "what = 'tick' AND started > '$since'"));
foreach my $role ('victim', $super)
{
	is( $node->safe_psql(
			'postgres', qq{
		SELECT count(*) FROM ledger
		WHERE what = 'tick' AND started > '$since' AND who = '$role/$role' AND started - planned > interval '2 s'}
		),
		'0',
		"no tick of $role was late");
	cmp_ok(
		$node->safe_psql(
			'postgres',
			"SELECT count(*) FROM ledger WHERE what = 'tick' AND started > '$since' AND who = '$role/$role'"
		),
		'>', 10,
		'... and there were some');
}

# ------------------------------------------------------------------------
# What is there before the extension is, and where it is not.

# The owner of a database makes tables like ours, with a task of a superuser's.
$node->safe_psql('postgres', 'CREATE DATABASE hers OWNER mallory');
my $tables = $node->safe_psql(
	'postgres', q{
SELECT string_agg(format('CREATE TABLE _taskshed.%I (%s)', relname,
	(SELECT string_agg(format('%I %s %s', attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NOT NULL' END), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0)), ';')
FROM pg_class c WHERE relnamespace = '_taskshed'::regnamespace AND relkind = 'r'}
);
my $indexes = $node->safe_psql(
	'postgres', q{
SELECT string_agg(pg_get_indexdef(i.oid), ';')
FROM pg_class i WHERE relnamespace = '_taskshed'::regnamespace AND relkind = 'i'}
);
is( as( 'mallory', qq{
CREATE SCHEMA taskshed;
CREATE SCHEMA _taskshed;
$tables;
$indexes;
CREATE SEQUENCE _taskshed.task_seq;
CREATE SEQUENCE _taskshed.run_seq;
CREATE TABLE public.robbed (who text);
CREATE FUNCTION public.rob() RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO public.robbed VALUES (session_user);
	ALTER ROLE mallory SUPERUSER;
END \$\$;
INSERT INTO _taskshed.task (id, owner, created_at, owner_name, is_alias, task_id, callback, kwargs, run_type, timezone, catch_up)
	VALUES (1, 10, now(), 'x', false, 'x', 'public.rob', '{}', 'once', 'UTC', 'coalesce');
INSERT INTO _taskshed.alarm (id, run_at, scheduled_at, anchor, revision, run_count, owner, attempt, failures_in_row, interruptions)
	VALUES (1, now(), now(), now(), 1, 0, 10, 0, 0, 0);
INSERT INTO _taskshed.history (began_at, part) VALUES (now(), 0);
SELECT 'planted'}, 'hers'),
	'planted',
	'tables like those of the extension in a database without it');
$log = -s $node->logfile;
$node->restart;
await(
	$node, q{
	SELECT state = 'active' FROM taskshed.status WHERE database = current_database()},
	'the server has been restarted');
as('victim',
	q{SELECT taskshed.add_task('public.note', kwargs => '{"what": "restarted"}', task_id => 'restarted')}
);
await_no_task($node, 'restarted');
await(
	$node, q{
	SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'taskshed scheduler'},
	'the launcher has looked into all databases');
is(as('mallory', 'SELECT who FROM public.robbed', 'hers'),
	'', '... are none of the extension\'s');
is( $node->safe_psql(
		'postgres',
		q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'}),
	'f',
	'mallory has not become a superuser');

# The extension is not installed into what she has prepared.
is(as($super, 'CREATE EXTENSION taskshed', 'hers'),
	'42501', 'CREATE EXTENSION into a schema of hers is refused');
$node->safe_psql('hers', "ALTER SCHEMA taskshed OWNER TO \"$super\"");
is(as($super, 'CREATE EXTENSION taskshed', 'hers'),
	'42P06', '... and so is one with her tables for its own');
$node->safe_psql('hers',
	'DROP SCHEMA _taskshed CASCADE; CREATE TABLE taskshed.x ()');
is(as($super, 'CREATE EXTENSION taskshed', 'hers'),
	'55000', '... and into one with anything in it');
$node->safe_psql('hers', 'DROP SCHEMA taskshed CASCADE');
as( 'mallory',
	q{CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'sprung by %/%: now', session_user, current_user; RETURN pg_catalog.now(); END $$},
	'hers');

# What the installing superuser's default privileges give away is not given.
$node->safe_psql(
	'hers', q{
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO mallory, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO mallory, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO mallory, PUBLIC;
ALTER DATABASE hers SET search_path = public, pg_catalog;
});
$log = -s $node->logfile;
as($super, 'CREATE EXTENSION taskshed', 'hers');
is( as( $super, q{
SELECT string_agg(DISTINCT privilege_type, ' ') FROM pg_class, aclexplode(relacl) AS a
WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND a.grantee <> relowner},
		'hers'),
	'SELECT',
	'default privileges for tables give nothing');
is( as( $super, q{
SELECT string_agg(DISTINCT privilege_type, ' ') FROM pg_namespace, aclexplode(nspacl) AS a
WHERE nspname = 'taskshed' AND a.grantee <> nspowner}, 'hers'),
	'USAGE',
	'... those for schemas no CREATE');
is( as( $super, q{
SELECT string_agg(a.grantee::regrole || ' ' || privilege_type, ', ') FROM pg_namespace, aclexplode(nspacl) AS a
WHERE nspname = '_taskshed' AND a.grantee <> nspowner}, 'hers'),
	'pg_database_owner USAGE',
	'... and nothing on that of the tables');
is(log_lines($node, qr/ sprung by/, $log),
	'', 'no function of hers was called by CREATE EXTENSION');

# The owner of the database can read what a dump has, and let others in; that is
# all.
is(as('mallory', 'SELECT count(*) FROM _taskshed.task', 'hers'),
	'0', "the database's owner reads the tasks");
is(as('mallory', $_, 'hers'), '42501', "the database's owner: $_")
  foreach (
	'SELECT * FROM _taskshed.run_0',
	'UPDATE _taskshed.task SET kwargs = kwargs',
	'INSERT INTO _taskshed.callback SELECT * FROM _taskshed.callback',
	'CREATE TABLE taskshed.x ()',
	'DROP EXTENSION taskshed',
	'DROP SCHEMA taskshed CASCADE',
	'CREATE TABLE _taskshed.x ()',
	'DROP SCHEMA _taskshed CASCADE',
	'ALTER EXTENSION taskshed UPDATE',
	'ALTER DATABASE hers SET taskshed.enabled = off',
	"REASSIGN OWNED BY \"$super\" TO mallory",
	"SELECT taskshed.add_task('public.note', owner => '$super')");

is( as( 'mallory', q{
GRANT USAGE ON SCHEMA _taskshed TO victim;
SELECT has_schema_privilege('victim', '_taskshed', 'USAGE')}, 'hers'),
	'f',
	"the database's owner lets nobody to the tables");

# ------------------------------------------------------------------------
# How the others did all the time.

as('victim', q{SELECT taskshed.remove_task('victims long run')});
is($node->safe_psql('postgres', $target),
	$untouched, 'victim\'s tasks are as they were');
is($node->safe_psql('postgres', $objects),
	$as_made, 'the extension is as it was made');
is($node->safe_psql('postgres', 'SELECT worn_by FROM crown'),
	'nobody', 'the crown is nobody\'s');
is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(task_id || ' ' || failures_in_row, ', ' ORDER BY task_id) FROM taskshed.tasks WHERE task_id LIKE '% tick' AND run_count > 50}
	),
	'superusers tick 0, victims tick 0',
	'all ticked all the time');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(DISTINCT status, ' ') FROM taskshed.runs WHERE task_id LIKE '% tick' AND status <> 'interrupted'}
	),
	'',
	'without an error');
is( $node->safe_psql(
		'postgres', q{
		SELECT what FROM ledger WHERE what <> 'tick' AND who NOT IN ('victim/victim', session_user || '/' || session_user)
			AND what NOT IN ('leaver') AND what NOT LIKE 'as %'}),
	'',
	'all in the ledger was done by whom it should');
unlike(
	join("\n",
		grep { !/STATEMENT|^\t/ } split(/\n/, slurp_file($node->logfile))),
	qr/taskshed.*Xyzzy|Xyzzy.*taskshed (?:worker|scheduler)/,
	'no value of kwargs is in the log');

$holder->quit;
$node->stop;
done_testing();
