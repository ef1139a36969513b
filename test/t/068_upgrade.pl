
# The extension and the library have versions, which must be the same: where
# they are not, functions raise an error that says what to do, and no task is
# run; after ALTER EXTENSION UPDATE all goes on.  The earlier version in
# test/frozen was never released; it is there for this.

use strict;
use warnings;

use File::Copy;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;
use Time::HiRes qw(time);

my $frozen = "$FindBin::RealBin/../frozen";
my $folder =
  PostgreSQL::Test::Cluster->new('folder')->config_data('--sharedir')
  . '/extension';
plan skip_all => "$folder cannot be written to" if !-w $folder;

# A later version, too, as if the server had not been restarted after its
# installation: it is the same one.
my @installed = map { "$folder/$_" } 'taskshed--0.9.sql',
  'taskshed--0.9--1.0.sql', 'taskshed--1.0--99.0.sql',
  'taskshed--99.0--1.0.sql';
copy("$frozen/taskshed--0.9.sql", $installed[0]) or die $!;

# Functions, views, types and tables are written once, in the script of the version that
# they are of, and so are columns that it adds.
my $script = slurp_file("$FindBin::RealBin/../../sql/taskshed--1.0.sql");
my $old    = slurp_file("$frozen/taskshed--0.9.sql");
my $to_10  = slurp_file("$frozen/taskshed--0.9--1.0.sql");

sub columns_of
{
	my ($sql, $table) = @_;
	my ($body) = $sql =~ /^CREATE TABLE _taskshed\.$table \(\n(.*?)^\)/ms
	  or die "no $table";

	return $body =~ /^\t([a-z_]+ .*?),?$/mg;
}

sub new_columns
{
	my ($table) = @_;
	my %old = map { $_ => 1 } columns_of($old, $table);

	return join "\n", map { "ALTER TABLE _taskshed.$table ADD COLUMN $_;" }
	  grep { !$old{$_} } columns_of($script, $table);
}

sub definition
{
	my ($name) = @_;
	my ($sql) =
	  $script =~
	  /^(CREATE FUNCTION taskshed\.$name\(.*?^(?:LANGUAGE c [^;]*|END \$\$|END);|CREATE (?:VIEW|TYPE|TABLE) _?taskshed\.$name [^;]*;)/ms
	  or die "no $name";

	return $sql;
}
$to_10 =~ s{^-- new columns of (\w+)$}{new_columns($1)}gme;
$to_10 =~ s{^-- as in 1\.0: (\w+)$}{definition($1)}gme;
append_to_file($installed[1], $to_10);
append_to_file($_,            "SELECT 1;\n") foreach @installed[ 2, 3 ];
END { unlink @installed }

my $node = taskshed_node('upgrade');

# One version everywhere
my ($default) =
  slurp_file("$FindBin::RealBin/../../taskshed.control") =~
  /^default_version = '(.+)'$/m;
my @meta = slurp_file("$FindBin::RealBin/../../META.json") =~
  /^(?! {4}"meta-spec)[^\n]*"version": "(\d+\.\d+)\.\d+"/mg;
is( $node->safe_psql(
		'postgres',
		q{SELECT extversion FROM pg_extension WHERE extname = 'taskshed'}),
	$default,
	'the extension is what taskshed.control says');
is_deeply([ @meta[ 0, 1 ] ], [ $default, $default ], 'so is META.json');
is( $node->safe_psql(
		'postgres',
		q{SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "x"}', task_id => 'x')}
	),
	'x',
	'and the library');

# An earlier one, with tasks
my $other =
  qr/taskshed library is version \Q$default\E but extension is version/;
my $update = qr/HINT:  ALTER EXTENSION taskshed UPDATE/;

sub error_of
{
	my ($database, $sql) = @_;
	my ($rc, $out, $err) =
	  $node->psql($database, "\\set VERBOSITY verbose\n$sql");

	return $err;
}

sub says
{
	my ($database) = @_;

	return $node->safe_psql('postgres',
		"SELECT state, message FROM taskshed.status WHERE database = '$database'"
	);
}

$node->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE DATABASE old');
$node->safe_psql(
	'old', q{
	CREATE EXTENSION taskshed VERSION '0.9';
	CREATE TABLE ledger (what text, at timestamptz DEFAULT clock_timestamp());
	CREATE FUNCTION note(what text) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.ledger VALUES (what) $$;
	GRANT USAGE ON SCHEMA taskshed TO app;
	GRANT ALL ON ledger TO app;
	INSERT INTO _taskshed.task (id, owner, created_at, owner_name, is_alias, task_id, callback, kwargs, run_type, every, timezone, catch_up)
	SELECT nextval('_taskshed.task_seq'), 'app'::regrole, now(), 'app', false, t, 'public.note', jsonb_build_object('what', t),
		CASE WHEN e IS NULL THEN 'once' ELSE 'recurring' END, e, 'UTC', 'coalesce'
	FROM (VALUES ('due', NULL), ('every', interval '1 hour'), ('paused', NULL)) AS v (t, e);
	INSERT INTO _taskshed.alarm (id, run_at, scheduled_at, anchor, revision, run_count, owner, attempt, failures_in_row, interruptions, paused_at)
	SELECT id, now() - interval '1 minute', now() - interval '1 minute', now() - interval '1 minute', 0, 7, owner, 0, 0, 0,
		CASE WHEN task_id = 'paused' THEN now() END
	FROM _taskshed.task});
await_status($node, 'old', 'stopped');
like(
	says('old'),
	qr/^stopped\|$other 0\.9 in this database$/,
	'status says so');

my @calls = (
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "y"}')},
	q{SELECT taskshed.add_tasks('[]')},
	q{SELECT taskshed.pause_task('due', 'app')},
	q{SELECT taskshed.fetch_task('due', 'app')},
	q{SELECT * FROM taskshed.fetch_tasks(owner => 'app')},
	q{SELECT taskshed.try_task('due')},
	q{SELECT taskshed.next_wakeup()},
	q{SELECT taskshed.add_callback('a', 'public.note')},
	q{SELECT taskshed.remove_callback('a')});

foreach my $call (@calls)
{
	like(error_of('old', $call),
		qr/ERROR:  55000: $other 0\.9 in .*$update/s, $call);
}
like(
	error_of('old', q{SELECT taskshed.describe('* * * * *')}),
	qr/ERROR:  0A000: taskshed\.describe\(\) is not supported by this version of the extension.*$update/s,
	'what an earlier version lacked says so');
like(
	error_of('old', 'BEGIN; DROP OWNED BY app; ROLLBACK'),
	qr/WARNING:  55000: $other 0\.9/,
	'DROP OWNED cannot reach tasks');
is( $node->safe_psql(
		'old', 'SELECT task_id, state FROM taskshed.tasks ORDER BY 1'),
	"due|due\nevery|due\npaused|paused",
	'the views work');

# A dump of it is restored as what is installed.
my $old_dump = $node->basedir . '/old_dump';
$node->command_ok([ 'pg_dump', '-Fc', '--file', $old_dump, 'old' ],
	'an old one is dumped');
$node->safe_psql('postgres', 'CREATE DATABASE newer');
$node->command_ok(
	[ 'pg_restore', '--exit-on-error', '--dbname', 'newer', $old_dump ],
	'and restored');
is( $node->safe_psql(
		'newer',
		q{SELECT (SELECT extversion FROM pg_extension WHERE extname = 'taskshed'),
		string_agg(task_id || ' ' || state, ', ' ORDER BY task_id) FROM taskshed.tasks}
	),
	"$default|due held, every held, paused paused",
	'as the version that is installed');

# What is rolled back was not.
my $session = session($node, 'old');
like($session->query('SELECT taskshed.next_wakeup()'), $other, 'a session');
$session->query('BEGIN; ALTER EXTENSION taskshed UPDATE');
is($session->query('SELECT taskshed.next_wakeup() IS NULL'),
	'f', 'it works where it was updated');
$session->query('ROLLBACK');
like($session->query('SELECT taskshed.next_wakeup()'),
	$other, 'and no longer when that is undone');
like(says('old'), qr/^stopped/, 'nothing has changed');
is($node->safe_psql('old', 'SELECT count(*) FROM ledger'),
	'0', 'and nothing has run');
is(() = slurp_file($node->logfile) =~ /LOG:  $other 0\.9/g,
	1, 'the log says it once');

# Updated
my $began = time;
$node->safe_psql('old', 'ALTER EXTENSION taskshed UPDATE');
await($node, 'SELECT count(*) = 2 FROM ledger', 'tasks run', 'old');
note sprintf 'after %.2f s', time - $began;
is( $node->safe_psql(
		'old',
		q{SELECT max(at) - (SELECT min(last_run_at) FROM taskshed.tasks) < interval '5 s' FROM ledger}
	),
	't',
	'they have run together');
cmp_ok(
	$node->safe_psql(
		'old', "SELECT extract(epoch FROM min(at)) - $began FROM ledger"),
	'<', 5, 'soon');
await_status($node, 'old', 'active');
is(says('old'), 'active|', 'and status has no more to say');
is( $node->safe_psql(
		'old',
		'SELECT task_id, state, run_count FROM taskshed.tasks ORDER BY 1'),
	"every|scheduled|8\npaused|paused|7",
	'tasks are what they were');
is( $session->query(
		q{SELECT taskshed.add_task('note', kwargs => '{"what": "new"}', task_id => 'new')}
	),
	'new',
	'the session that was there works');
await($node, q{SELECT count(*) = 1 FROM ledger WHERE what = 'new'},
	'new ones run', 'old');

# It is what a new one would be.
my $shape = q{
	SELECT format('%s %s', c.relname, string_agg(format('%s %s %s', a.attname, a.atttypid::regtype, a.attnotnull), ',' ORDER BY a.attnum))
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
	WHERE c.relnamespace = ANY (ours) GROUP BY c.oid
	UNION ALL SELECT format('%s %s', indexrelid::regclass, pg_get_indexdef(indexrelid)) FROM pg_index WHERE indrelid::regclass::text ~ '^_?taskshed[.]'
	UNION ALL SELECT format('%s %s %s', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger WHERE tgrelid::regclass::text ~ '^_?taskshed[.]'
	UNION ALL SELECT format('%s %s %s %s', oid::regprocedure, pg_get_function_result(oid), prosrc, proacl) FROM pg_proc WHERE pronamespace = ANY (ours)
	UNION ALL SELECT format('%s %s %s', oid::regclass, relacl, relreplident) FROM pg_class WHERE relnamespace = ANY (ours) AND relkind IN ('r', 'v')
	UNION ALL SELECT format('%s %s', oid::regclass, pg_get_viewdef(oid)) FROM pg_class WHERE relnamespace = ANY (ours) AND relkind = 'v'
	UNION ALL SELECT array_agg(c::regclass::text ORDER BY c::regclass::text)::text FROM pg_extension, unnest(extconfig) AS c WHERE extname = 'taskshed'
	UNION ALL SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'taskshed')
	UNION ALL SELECT format('%s %s', oid::regnamespace, nspacl) FROM pg_namespace WHERE nspname = '_taskshed'
	ORDER BY 1};
$shape =~
  s/ANY \(ours\)/ANY (ARRAY['taskshed', '_taskshed']::regnamespace[])/g;
is( $node->safe_psql('old',      "SET search_path = ''; $shape"),
	$node->safe_psql('postgres', "SET search_path = ''; $shape"),
	'an updated extension is like a new one');

# And it can be dumped and restored.
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '--file', $dump, 'old' ], 'dumped');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok(
	[ 'pg_restore', '--exit-on-error', '--dbname', 'restored', $dump ],
	'restored');
is( $node->safe_psql(
		'restored', 'SELECT task_id, state FROM taskshed.tasks ORDER BY 1'),
	"every|held\npaused|paused",
	'with its tasks');

# A later version than the library: the run in progress leaves nothing.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
$session->quit;
$session = session($node);
is($session->query('SELECT taskshed.next_wakeup() > now()'), 't',
	'a session');
$node->safe_psql('postgres',
	q{SELECT taskshed.add_task('hold', kwargs => '{"what": "held"}', task_id => 'held')}
);
await_blocked($node, 1);
$node->safe_psql('postgres', q{ALTER EXTENSION taskshed UPDATE TO '99.0'});
like(
	$session->query('SELECT taskshed.next_wakeup()'),
	qr/$other 99\.0 in this database\nHINT:  Restart the server/,
	'the library is the older one');
await_status($node, 'postgres', 'stopped');
$holder->query('SELECT pg_advisory_unlock(1)');
$node->wait_for_log(
	qr/could not record that task "held" has failed: $other 99\.0/);
is($node->safe_psql('postgres', 'SELECT count(*) FROM ledger'),
	'0', 'a run in progress has left nothing');
$node->safe_psql('postgres', q{ALTER EXTENSION taskshed UPDATE TO '1.0'});
await_no_task($node, 'held');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ledger'),
	'1', 'and is done again, once');
is($session->query('SELECT taskshed.next_wakeup() > now()'),
	't', 'all is well');
await_status($node, 'postgres', 'active');

# A database that was stopped leaves nothing behind when it is dropped.
$node->safe_psql('old', q{ALTER EXTENSION taskshed UPDATE TO '99.0'});
await_status($node, 'old', 'stopped');
$node->safe_psql('postgres', 'DROP DATABASE old');
is( $node->safe_psql(
		'postgres',
		'SELECT count(*) FROM taskshed._status() WHERE database NOT IN (SELECT oid FROM pg_database)'
	),
	'0',
	'a dropped one is forgotten');

$holder->quit;
$session->quit;
$node->stop;
done_testing();
