
# Two-phase commit: what a prepared transaction has scheduled is picked up at once
# when it is committed, by whichever session, after a restart, after a crash, and
# on a standby that was promoted.  What else the end of a transaction has to tell,
# of roles, settings, databases and the extension, is told then, too.  Prepared
# transactions that have nothing to do with taskshed do not even wake anybody.
#
# Quick: promise 1; crash, standby

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;
use Time::HiRes qw(time);

my $node = taskshed_node(
	'two_phase',
	init => [ allows_streaming => 'logical' ],
	conf => 'max_prepared_transactions = 200');
my $super = $node->safe_psql('postgres', 'SELECT current_user');

# Prepares what has these statements, and leaves.
sub prepare
{
	my ($gid, $sql, $database) = @_;

	return $node->safe_psql($database || 'postgres',
		"BEGIN; $sql; PREPARE TRANSACTION '$gid'");
}

sub commit
{
	my ($gid, $database) = @_;

	return $node->safe_psql($database || 'postgres',
		"COMMIT PREPARED '$gid'");
}

# So many tasks with names like that have run by now.
sub await_ran
{
	my ($what, $n, $server) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return await(
		$server || $node,
		"SELECT count(*) = $n FROM ledger WHERE what LIKE '$what'",
		"$n tasks like $what have run");
}

# Committed, and rolled back
prepare('one', add_note('one'));
is( query(
		q{SELECT (SELECT count(*) FROM taskshed.tasks), (SELECT count(*) FROM ledger)}
	),
	'0|0',
	'nothing of it is seen before it is committed');
commit('one');
await_ran('one', 1);
prepare('back', add_note('back'));
query(q{ROLLBACK PREPARED 'back'});
prepare('few',  join '', map { add_note("few $_") } 1 .. 8);
prepare('more', join '', map { add_note("more $_") } 1 .. 9);
prepare('many', join '', map { add_note("many $_") } 1 .. 200);
commit($_) foreach ('few', 'more', 'many');
await_ran('few %',  8);
await_ran('more %', 9);
await_ran('many %', 200);
is(query(q{SELECT count(*) FROM ledger WHERE what = 'back'}),
	'0', 'what was rolled back never ran');

prepare('ahead', add_note('ahead', q{run_at => now() + interval '1 s'}));
commit('ahead');
await_ran('ahead', 1);
my $long = q{it''s } . 'x' x 194;
prepare($long, add_note('long'));
commit($long);
await_ran('long', 1);

# Changed, not added
query(  add_note('changed', q{run_at => '2100-01-01'})
	  . add_note('removed', q{run_at => '2100-01-01'})
	  . add_note('paused',  q{paused => true}));
prepare(
	'changes',
	q{SELECT taskshed.update_execution_time('changed', now()); SELECT taskshed.remove_task('removed');
	SELECT taskshed.resume_task('paused')});
commit('changes');
await_ran('changed', 1);
await_ran('paused',  1);
is(query('SELECT count(*) FROM taskshed.tasks'), '0', 'the other is removed');

# A PREPARE that fails, since there is one of that name
prepare('twice', add_note('first', q{run_at => now() + interval '2 s'}));
my ($rc, $out, $err) = $node->psql('postgres',
		'BEGIN;'
	  . add_note('second', q{run_at => '2100-01-01'})
	  . q{PREPARE TRANSACTION 'twice'});
like($err, qr/"twice" is already in use/, 'a name is used once');
commit('twice');
await_ran('first', 1);
is(query('SELECT count(*) FROM taskshed.tasks'), '0', 'nothing of the other');
($rc, $out, $err) = $node->psql('postgres',
		'BEGIN;'
	  . add_note('failed')
	  . q{SELECT 1 / 0; PREPARE TRANSACTION 'failed'});
query(q{BEGIN; PREPARE TRANSACTION 'failed'});
commit('failed');
is(query('SELECT count(*) FROM taskshed.tasks'),
	'0', 'nor of one that failed');

# The session that has prepared goes on.
my $session = session($node);
is( $session->query(
			q{BEGIN; }
		  . add_note('kept')
		  . q{; PREPARE TRANSACTION 'kept'; }
		  . add_note('own')),
	"kept\nown",
	'a session prepares, and adds something else');
await_ran('own', 1);
$session->query(q{COMMIT PREPARED 'kept'});
await_ran('kept', 1);
$session->quit;

# More of them than are remembered
prepare("full $_", add_note("full $_")) foreach 1 .. 180;
query(join ';', map { "COMMIT PREPARED 'full $_'" } 1 .. 1);
await_ran('full %', 1);
$node->safe_psql('postgres', join "\n",
	map { "COMMIT PREPARED 'full $_';" } 2 .. 180);
await_ran('full %', 180);

# A transaction that is prepared otherwise wakes nobody.
sub switches
{
	return switches_of(
		pids_of(
			$node,
			"backend_type IN ('taskshed scheduler', 'taskshed launcher')"));
}

query('CREATE TABLE other (n int)');
my $before = switches();
$node->safe_psql(
	'postgres',
	join "\n",
	map {
		"BEGIN; INSERT INTO other VALUES ($_); PREPARE TRANSACTION 'other'; COMMIT PREPARED 'other';"
	} 1 .. 300);
cmp_ok(switches() - $before, '<', 100, 'those of others wake nobody');

# Roles
query('CREATE ROLE r LOGIN');
foreach my $i (1, 2)
{
	query(add_note("role $i", q{owner => 'r', paused => true}));
	prepare('out', 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
	commit('out');
	query("SELECT taskshed.resume_task('role $i', 'r')");
	await(
		$node,
		q{SELECT message LIKE '%not permitted to connect%' FROM taskshed.status WHERE database = 'postgres'},
		'a role is locked out');
	my $begin = time();
	prepare('in', 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');
	commit('in');
	await_ran("role $i", 1);
	cmp_ok(time() - $begin, '<', 30, 'a role is let in at once');
}

# Settings
foreach my $state ('disabled', 'active')
{
	prepare('set',
		'ALTER DATABASE postgres SET taskshed.enabled = '
		  . ($state eq 'active' ? 'on' : 'off'));
	commit('set');
	await_status($node, 'postgres', $state);
}

# Databases, with some that have nothing to do with it
query("CREATE DATABASE served$_") foreach (1 .. 4);
$node->safe_psql("served$_",
	q{CREATE EXTENSION taskshed; SELECT taskshed.add_task('pg_sleep', now() + interval '4 minutes', validate => false)}
) foreach (1 .. 4);
await(
	$node,
	q{SELECT count(*) = 4 AND bool_and(state = 'active') FROM taskshed.status WHERE database LIKE 'served%'},
	'four databases are served');
query('CREATE DATABASE d');
$node->safe_psql('d', 'CREATE EXTENSION taskshed');
query('ALTER DATABASE d ALLOW_CONNECTIONS false');
prepare('open', 'ALTER DATABASE d ALLOW_CONNECTIONS true');
commit('open');
await(
	$node,
	q{SELECT state IN ('active', 'asleep') FROM taskshed.status WHERE database = 'd'},
	'a database that was opened is served');

# The same while three others are held by transactions that may last.
query('ALTER DATABASE d ALLOW_CONNECTIONS false');
prepare('open', 'ALTER DATABASE d ALLOW_CONNECTIONS true');
my @holding = map { session($node) } 1 .. 3;
$holding[ $_ - 1 ]->query("BEGIN; ALTER DATABASE served$_ IS_TEMPLATE true")
  foreach (1 .. 3);
commit('open');
await(
	$node,
	q{SELECT state IN ('active', 'asleep') FROM taskshed.status WHERE database = 'd'},
	'others that are held keep it from nothing');
$_->query('ROLLBACK')           foreach @holding;
$_->quit                        foreach @holding;
query("DROP DATABASE served$_") foreach (1 .. 4);
my $served =
  q{SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'd' AND backend_type LIKE 'taskshed%'};

# One that is closed, with a callback that runs and a worker that has nothing to do
# at times: those of other databases stay as they are.
$node->safe_psql(
	'd', q{
	CREATE ROLE idles LOGIN;
	GRANT USAGE ON SCHEMA public TO idles;
	CREATE FUNCTION sleeps() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(1000)';
	CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
	SELECT taskshed.add_task('sleeps', task_id => 'sleeps');
	SELECT taskshed.add_task('nothing', owner => 'idles', every => '1 s')}
);
query(add_note('often', q{every => '200 ms'}));
my $scheduler =
  q{SELECT pid FROM pg_stat_activity WHERE datname = 'postgres' AND backend_type = 'taskshed scheduler'};
await($node, "SELECT EXISTS ($scheduler)",
	'another database has a scheduler');
my $pid = query($scheduler);
my $workers =
  q{SELECT count(*) = 2 FROM pg_stat_activity WHERE datname = 'd' AND backend_type = 'taskshed worker'};

foreach my $command (
	[ 'IS_TEMPLATE',       'true',  'false' ],
	[ 'ALLOW_CONNECTIONS', 'false', 'true' ])
{
	my ($option, $close, $open) = @$command;

	await($node, $workers, "workers are there, before $option $close");
	prepare('close', "ALTER DATABASE d $option $close");
	await($node, $workers, 'they come back when it is prepared');
	commit('close');
	await($node, "SELECT NOT ($served)", 'all leave when it is committed');
	query("ALTER DATABASE d $option $open");
}
await($node, $workers, 'they come back when it is open again');
is( $node->safe_psql(
		'd',
		q{SELECT string_agg(status || ' ' || attempt, ', ' ORDER BY finished_at, run_id) FROM taskshed.runs WHERE task_id = 'sleeps'}
	),
	join(', ', ('interrupted 1') x 4),
	'what was running does not count as interrupted');
prepare('rename', 'ALTER DATABASE d RENAME TO renamed');
commit('rename');
query('ALTER DATABASE renamed RENAME TO d');
is(query($scheduler), $pid, 'the other database has kept its scheduler');
query(q{SELECT taskshed.remove_task('often')});
$node->safe_psql('d', 'SELECT taskshed.remove_all_tasks()');
prepare('d', q{SELECT taskshed.add_task('nothing', task_id => 'prepared')},
	'd');
($rc, $out, $err) = $node->psql('postgres', 'DROP DATABASE d');
like(
	$err,
	qr/1 prepared transaction/,
	'a database with a prepared transaction is not dropped');
await(
	$node,
	q{SELECT state IN ('active', 'asleep') FROM taskshed.status WHERE database = 'd'},
	'it is served again');
commit('d', 'd');
await($node,
	q{SELECT count(*) = 1 FROM taskshed.runs WHERE task_id = 'prepared'},
	'it runs', 'd');
query('DROP DATABASE d');

# The extension
query('CREATE DATABASE e');
$node->safe_psql('e',
	'CREATE TABLE ledger (what text); CREATE FUNCTION note(what text) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.ledger VALUES (what) $$'
);
prepare('create', 'CREATE EXTENSION taskshed; ' . add_note('created'), 'e');
commit('create', 'e');
await($node, 'SELECT count(*) = 1 FROM ledger', 'created', 'e');
prepare('drop', 'DROP EXTENSION taskshed', 'e');
$node->safe_psql('e', q{ROLLBACK PREPARED 'drop'});
$node->safe_psql('e', add_note('still'));
await($node, 'SELECT count(*) = 2 FROM ledger', 'still there', 'e');
prepare('drop', 'DROP EXTENSION taskshed', 'e');
commit('drop', 'e');
await(
	$node,
	q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'e' AND backend_type LIKE 'taskshed%'},
	'all have left');

# The worker of a subscription prepares without a statement.
$node->safe_psql('e', 'CREATE TABLE sent (what text PRIMARY KEY)');
query(
	q{CREATE TABLE sent (what text PRIMARY KEY);
	CREATE FUNCTION came() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM taskshed.add_task('public.note', kwargs => jsonb_build_object('what', NEW.what));
		RETURN NULL;
	END $$;
	CREATE TRIGGER came AFTER INSERT ON sent FOR EACH ROW EXECUTE FUNCTION came();
	ALTER TABLE sent ENABLE ALWAYS TRIGGER came});
$node->safe_psql('e',
	q{CREATE PUBLICATION sent FOR TABLE sent; SELECT pg_create_logical_replication_slot('sent', 'pgoutput', false, true)}
);
my $publisher = $node->connstr('e') =~ s/'//gr;
query(
	qq{CREATE SUBSCRIPTION sent CONNECTION '$publisher user=$super' PUBLICATION sent
	WITH (create_slot = false, two_phase = true)});
await(
	$node,
	q{SELECT subtwophasestate = 'e' FROM pg_subscription},
	'two_phase is in effect');
foreach my $restart (0, 1)
{
	prepare('sent', "INSERT INTO sent VALUES ('sent $restart')", 'e');
	await(
		$node,
		q{SELECT count(*) = 1 FROM pg_prepared_xacts WHERE database = 'postgres'},
		'it is prepared here, too');
	query('SELECT pg_terminate_backend(pid) FROM pg_stat_subscription')
	  if $restart;
	commit('sent', 'e');
	await_ran("sent $restart", 1);
}
query('DROP SUBSCRIPTION sent; ALTER TABLE sent DISABLE TRIGGER came');

# Nor can a task prepare anything.
query(
	q{SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "PREPARE TRANSACTION ''x''"}', task_id => 'prepares', validate => false)}
);
await_state($node, 'prepares', 'failed');
query(q{SELECT taskshed.remove_task('prepares')});

# A restart, a crash
foreach my $mode ('fast', 'immediate')
{
	prepare($mode,         add_note($mode));
	prepare("$mode roles", 'ALTER ROLE r CONNECTION LIMIT 5');
	$node->stop($mode);
	$node->start;
	await_status($node, 'postgres', 'active');
	query(add_note("new $mode"));
	await_ran("new $mode", 1);
	commit($mode);
	await_ran($mode, 1);
	commit("$mode roles");
}

# A standby that is promoted
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('promoted');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
prepare('promoted', add_note('promoted'));
prepare('undone',   add_note('undone'));
$node->wait_for_catchup($standby);
$node->stop;
$standby->promote;
await_status($standby, 'postgres', 'active');
$standby->safe_psql('postgres', add_note('new'));
await_ran('new', 1, $standby);
$standby->safe_psql('postgres', q{ROLLBACK PREPARED 'undone'});
$standby->safe_psql('postgres', q{COMMIT PREPARED 'promoted'});
await_ran('promoted', 1, $standby);
is($standby->safe_psql('postgres', 'SELECT count(*) FROM taskshed.tasks'),
	'0', 'and nothing is left');

$standby->stop;
done_testing();
