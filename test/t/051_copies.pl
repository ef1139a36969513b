
# Tasks that came with a copy of a database do not run in it before its owner has
# called activate().  Copies made with TEMPLATE and from dumps, those that
# brought no tasks, and roles that are others than where the dump was made.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('copies');
my $dump = $node->basedir . '/dump';

$node->safe_psql(
	'postgres', q{
CREATE ROLE owns LOGIN CREATEDB;
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN});

sub make_database
{
	my ($name) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name OWNER owns");
	taskshed_database($node, $name);
	return;
}

# What have tasks done in a database?
sub ledger
{
	my ($name) = @_;

	return $node->safe_psql($name,
		"SELECT string_agg(what, ' ' ORDER BY what) FROM ledger");
}

sub try_in
{
	my ($name, $role, $sql) = @_;
	my ($rc, $out, $err) =
	  $node->psql($name, $sql, extra_params => [ '-U', $role ]);

	return $out . $err;
}

sub dump_to
{
	my ($from, $to, @options) = @_;

	$node->command_ok(
		[ 'pg_dump', '--format=custom', '--file', $dump, $from ],
		"dumped $from");
	$node->command_ok(
		[ 'pg_restore', '--exit-on-error', @options, '--dbname', $to, $dump ],
		"restored into $to @options");
	return;
}

# TEMPLATE.  (A task that is due is held in the original, too, by its gate.)
make_database('original');
$node->safe_psql('original',
	q{SELECT taskshed.add_task('note', run_at => now() + interval '1 day', kwargs => '{"what": "old"}', task_id => 'old', owner => 'app')}
);
is(try_in('original', 'owns', 'SELECT taskshed.activate()'),
	'', 'activate() where nothing is held');
is(try_in('postgres', 'owns', 'CREATE DATABASE copy TEMPLATE original'),
	'', 'a copy');
await_status($node, 'copy', 'held');
is($node->safe_psql('copy', 'SELECT state FROM taskshed.tasks'),
	'held', 'the view tasks says so');
ok( $node->log_contains(
		qr/LOG:  tasks of database "copy" are held, because it is a copy.*DETAIL:  It has tasks of the database that it was copied from/s
	),
	'the log says so');
like(
	$node->safe_psql(
		'postgres',
		q{SELECT message FROM taskshed.status WHERE database = 'copy'}),
	qr/taskshed\.activate\(\)/,
	'so does status');
like(
	try_in(
		'copy',
		'app',
		q{BEGIN; SELECT taskshed.add_task('note', kwargs => '{"what": "new"}', task_id => 'new');
		SELECT taskshed.add_task('note', kwargs => '{"what": "new"}', task_id => 'new 2'); COMMIT;
		SELECT taskshed.update_execution_time('old', now())}),
	qr/^new\nnew 2\nt\n?[^\n]*WARNING:  tasks wait, because the database is a copy\n(?!.*WARNING)/s,
	'and so does scheduling, once');
like(
	try_in('copy', 'app', 'SELECT taskshed.activate()'),
	qr/ERROR:  must be owner of database copy/,
	'not everybody can activate it');

# The scheduler has read what was added: still nothing runs.
await(
	$node,
	'SELECT due = 3 FROM taskshed.status WHERE database = current_database()',
	'three tasks are due',
	'copy');
$node->restart;
await_status($node, 'copy', 'held');
is(ledger('copy'), '', 'nothing has run in the copy');
is(try_in('copy', 'owns', 'BEGIN; SELECT taskshed.activate(); ROLLBACK'),
	'', 'activate() rolled back');
await_status($node, 'copy', 'held');
is(try_in('copy', 'owns', 'SELECT taskshed.activate()'), '', 'activate()');
await($node, 'SELECT count(*) = 3 FROM ledger', 'tasks run', 'copy');
is(ledger('copy'),     'new new old', 'all have run in the copy');
is(ledger('original'), '',            'and none in the original');
is($node->safe_psql('copy', q{SELECT DISTINCT who FROM ledger}),
	'app/app', 'as whom they were');
is( $node->safe_psql(
		'copy',
		'SELECT count(*), bool_and(database = (SELECT oid FROM pg_database WHERE datname = current_database())) FROM _taskshed.home'
	),
	'1|t',
	'it is at home now');

# A copy of the copy, and one that brings no tasks
is(try_in('postgres', 'owns', 'CREATE DATABASE empty TEMPLATE copy'),
	'', 'a copy without tasks');
await_status($node, 'empty', 'active');
is( try_in(
		'empty',
		'app',
		q{SELECT taskshed.add_task('note', kwargs => '{"what": "first"}', task_id => 'x')}
	),
	'x',
	'its first task');
await($node, q{SELECT what = 'first' FROM ledger WHERE what = 'first'},
	'it runs', 'empty');
is(try_in('postgres', 'owns', 'CREATE DATABASE cleared TEMPLATE original'),
	'', 'a copy with tasks');
await_status($node, 'cleared', 'held');
$node->safe_psql(
	'cleared',
	q{SELECT taskshed.remove_all_tasks('app');
	SELECT taskshed.add_task('note', kwargs => '{"what": "first"}')});
await(
	$node,
	'SELECT count(*) = 1 FROM ledger',
	'it runs, since what came along is gone', 'cleared');

# Two transactions that both add the first task: both run.
make_database('fresh');
my @sessions = map { session($node, 'fresh') } 1, 2;
$_->query('BEGIN; '
	  . q{SELECT taskshed.add_task('note', kwargs => '{"what": "both"}')})
  foreach @sessions;
$_->query('COMMIT') foreach @sessions;
$_->quit foreach @sessions;
await($node, 'SELECT count(*) = 2 FROM ledger', 'both run', 'fresh');
await_status($node, 'fresh', 'active');

# One of which is rolled back
make_database('fresh2');
@sessions = map { session($node, 'fresh2') } 1, 2;
$_->query('BEGIN; '
	  . q{SELECT taskshed.add_task('note', kwargs => '{"what": "one"}')})
  foreach @sessions;
$sessions[0]->query('ROLLBACK');
$sessions[1]->query('COMMIT');
$_->quit foreach @sessions;
await($node, 'SELECT count(*) = 1 FROM ledger', 'it runs', 'fresh2');

# Dumps.  In the other server the OIDs of the roles are others: app and other have
# changed names, and a role that had tasks is missing.
make_database('source');
$node->safe_psql('postgres', 'CREATE ROLE leaves LOGIN');
$node->safe_psql(
	'source', q{
	GRANT CREATE ON SCHEMA public TO app, other, leaves;
	SET ROLE app;
	SELECT taskshed.add_callback('say', 'public.note');
	SELECT taskshed.add_task('say', now() + interval '1 day', '{"what": "of app"}', task_id => 'x', every => '1 day', paused => true);
	SET ROLE other;
	SELECT taskshed.add_task('public.note', now() + interval '1 day', '{"what": "of other"}', task_id => 'x');
	SET ROLE leaves;
	SELECT taskshed.add_task('public.note', now() + interval '1 day', '{"what": "of leaves"}', task_id => 'x')}
);
$node->safe_psql('postgres', 'CREATE DATABASE restored OWNER owns');
dump_to('source', 'restored', '--no-owner', '--no-privileges');
$node->safe_psql(
	'postgres', q{
	DROP DATABASE source;
	ALTER ROLE app RENAME TO swap;
	ALTER ROLE other RENAME TO app;
	ALTER ROLE swap RENAME TO other;
	ALTER ROLE leaves RENAME TO stranger;
	ALTER ROLE stranger CREATEROLE});
await_status($node, 'restored', 'held');
like(
	try_in(
		'restored',
		'postgres',
		q{GRANT USAGE ON SCHEMA taskshed, public TO app;
		SET ROLE app;
		SELECT taskshed.add_task('public.note', now() + interval '1 day', '{"what": "of swapped app"}', task_id => 'new')}
	),
	qr/WARNING:  tasks wait, because the database is a copy/,
	'scheduled by the new app before activate()');
ok( $node->log_contains(
		qr/tasks of database "restored" are held.*DETAIL:  It has tasks that were restored from a dump/s
	),
	'the log says why');
like(
	try_in('restored', 'owns', 'SELECT taskshed.activate()'),
	qr/WARNING:  role "leaves", which has tasks, does not exist\nDETAIL:  They fail when they are due.\nHINT:  Create the role .*set_owner\('role', owner => '\d+'\)/,
	'activate() misses a role');
await_status($node, 'restored', 'active');
is( $node->safe_psql(
		'restored',
		q{SELECT count(*) FROM taskshed.tasks WHERE owner ~ '^42949[0-9]+$' AND state = 'scheduled'}
	),
	'1',
	'what has no owner is at an OID that no role will have soon');
is( $node->safe_psql(
		'restored', q{
		SELECT CASE WHEN owner !~ '^[0-9]' THEN owner ELSE 'nobody' END, kwargs->>'what', state
		FROM taskshed.tasks ORDER BY 1, 2}),
	"app|of app|paused\napp|of swapped app|scheduled\nnobody|of leaves|scheduled\nother|of other|scheduled",
	'tasks belong to whom they belonged, by name');
is( $node->safe_psql(
		'restored', 'SELECT owner, name FROM taskshed.callbacks'),
	'app|say',
	'and so do aliases');
$node->safe_psql('postgres', 'CREATE ROLE leaves LOGIN');
is(try_in('restored', 'postgres', 'SELECT taskshed.activate()'),
	'', 'activate() again, with the role that was missing');
is( $node->safe_psql(
		'restored',
		q{SELECT owner FROM taskshed.tasks WHERE kwargs->>'what' = 'of leaves'}
	),
	'leaves',
	'it has got its tasks');
$node->safe_psql(
	'restored', q{
	GRANT USAGE ON SCHEMA taskshed, public TO app, other;
	GRANT ALL ON ledger TO PUBLIC;
	SELECT taskshed.run_tasks(array['x'], owner => r) FROM unnest(array['app', 'other']) AS r}
);
await($node, 'SELECT count(*) = 2 FROM ledger', 'they run', 'restored');
is( $node->safe_psql(
		'restored', 'SELECT what, who FROM ledger ORDER BY what'),
	"of app|app/app\nof other|other/other",
	'each as its owner');

# Parts of a dump, as its documentation says
foreach my $case (
	[ 'parallel', '--jobs', '3' ],
	[ 'at_once',  '--single-transaction' ],
	[ 'data',     '--data-only', '--disable-triggers' ])
{
	my ($name, @options) = @{$case};

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql('original', 'CREATE EXTENSION IF NOT EXISTS taskshed');
	if ($options[0] eq '--data-only')
	{
		$node->safe_psql($name, 'CREATE EXTENSION taskshed');
		push @options, '--schema', '_taskshed';
	}
	dump_to('original', $name, @options);
	await_status($node, $name, 'held');
	is( $node->safe_psql($name, 'SELECT task_id, state FROM taskshed.tasks'),
		'old|held',
		"@options: the task is there");
}

# --disable-triggers leaves the triggers as others are, as the manual says.
my $triggers =
  q{SELECT string_agg(DISTINCT tgenabled::text, '') FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
	WHERE relnamespace = '_taskshed'::regnamespace AND relkind = 'r' AND NOT tgisinternal};
my ($mend) =
  slurp_file("$FindBin::RealBin/../../docs/operations.md") =~
  /^(DO \$\$.*?^END \$\$;)$/ms;
isnt($node->safe_psql('data', $triggers), 'A', 'triggers are changed');
$node->safe_psql('data', $mend);
is($node->safe_psql('data', $triggers), 'A', 'what the manual says mends it');

# A dump that is restored into a copy that brought no tasks is a dump.
$node->safe_psql('postgres', 'CREATE DATABASE into_copy TEMPLATE empty');
$node->safe_psql('into_copy',
	q{SELECT taskshed.remove_all_tasks(r) FROM unnest(ARRAY['app', 'other', 'postgres']) AS r}
);
is( $node->safe_psql(
		'into_copy',
		'SELECT bool_and(database <> (SELECT oid FROM pg_database WHERE datname = current_database())) FROM _taskshed.home'
	),
	't',
	'a copy that has been at home elsewhere');
dump_to('original', 'into_copy', '--data-only', '--schema', '_taskshed');
is( $node->safe_psql(
		'into_copy',
		'SELECT bool_and(database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND restored) FROM _taskshed.home'
	),
	't',
	'what was restored into it counts as restored');
is( $node->safe_psql(
		'into_copy', 'SELECT task_id, state FROM taskshed.tasks'),
	'old|held',
	'and is held');
await_status($node, 'into_copy', 'held');

# Whoever may copy a template is not to run what others have in it.
$node->safe_psql(
	'postgres', q{
	CREATE ROLE maker LOGIN CREATEDB;
	ALTER DATABASE original IS_TEMPLATE true});
is(try_in('postgres', 'maker', 'CREATE DATABASE stolen TEMPLATE original'),
	'', 'somebody copies the template of somebody else');
$node->safe_psql('stolen', 'GRANT USAGE ON SCHEMA taskshed TO maker');
like(
	try_in('stolen', 'maker', 'SELECT taskshed.activate()'),
	qr/ERROR:  permission denied to activate tasks of role "other"\nDETAIL:  .*\nHINT:  Ask a superuser/,
	'and must not activate its tasks');
like(
	try_in('postgres', 'maker', 'CREATE DATABASE forged OID = 987654'),
	qr/ERROR:  permission denied to choose the OID of a database/,
	'and must not make it the home of what it has copied');
$node->safe_psql('postgres', 'GRANT other TO maker');
is(try_in('stolen', 'maker', 'SELECT taskshed.activate()'),
	'', 'unless it may act as their owners');
await_status($node, 'stolen', 'active');
$node->safe_psql('postgres', 'ALTER DATABASE original IS_TEMPLATE false');

# An extension that is created again starts anew.
$node->safe_psql('original',
	'DROP EXTENSION taskshed; CREATE EXTENSION taskshed');
is( try_in(
		'original',
		'postgres',
		q{SELECT taskshed.add_task('public.note', kwargs => '{"what": "again"}', task_id => 'y')}
	),
	'y',
	'scheduled with an extension created anew');
await($node, q{SELECT EXISTS (SELECT FROM ledger WHERE what = 'again')},
	'it runs', 'original');

$node->stop;
done_testing();
