
# A full disk: nothing is lost and nothing is doubled.  The data are on one
# small disk and the WAL on another.  While tasks run and clients add more, the
# first is filled up, so that callbacks and the bookkeeping fail, and emptied;
# then the second, so that the server goes down again and again.  At the end
# each one-off task that was added has had its effect once, also those that are to
# be tried once only, since a full disk is not their fault; so has each time of the
# recurring ones; and all processes are back at work.
#
# TASKSHED_SMALL_DISKS is a folder with two of them, "data" and "wal".  Root's
# "make test" mounts some for this script.

use strict;
use warnings;

use File::Temp;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedFaults;
use TaskshedTest;
use Test::More;
use Time::HiRes qw(usleep);

my $disks = $ENV{TASKSHED_SMALL_DISKS};
plan skip_all => 'there are no small disks to be filled up'
  unless defined $disks;

my %folder = map {
	$_ => File::Temp::tempdir(
		'taskshed.XXXXXX',
		DIR     => "$disks/$_",
		CLEANUP => 1)
} qw(data wal);

# (A task that is hit by chance again and again must not be taken for the
# culprit.)
my $node = taskshed_node(
	'disk_full',
	data   => $folder{data},
	initdb => [ '--waldir', $folder{wal}, '--wal-segsize', '1' ],
	conf   => q{
restart_after_crash = on
max_wal_size = '8MB'
min_wal_size = '2MB'
taskshed.max_interruptions = 1000
});

# Rows that fill a page soon.
$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
CREATE TABLE effects (
	task_id text NOT NULL,
	planned timestamptz NOT NULL,
	pid integer NOT NULL DEFAULT pg_backend_pid(),
	padding text NOT NULL DEFAULT repeat('.', 1000));
GRANT ALL ON effects TO PUBLIC;
CREATE FUNCTION effect() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	me record := taskshed.current_task();
BEGIN
	INSERT INTO effects (task_id, planned) VALUES (me.task_id, me.run_at);
END $$;

-- What was added: one-off tasks, some of which are not to be tried again; and
-- recurring ones.
CREATE TABLE added (task_id text NOT NULL);
CREATE FUNCTION add_some(batch integer) RETURNS void LANGUAGE sql AS $$
	INSERT INTO added SELECT taskshed.add_task('effect',
		run_at => clock_timestamp() + random() * interval '1 s',
		task_id => CASE WHEN n % 5 = 0 THEN 'frail ' ELSE 'once ' END || batch || '.' || n,
		max_attempts => CASE WHEN n % 5 = 0 THEN 1 ELSE 0 END,
		retry_delay => '20 ms', retry_max_delay => '500 ms',
		owner => CASE WHEN n % 2 = 0 THEN 'app' ELSE 'other' END)
	FROM generate_series(1, 40) AS n
$$;
CREATE TABLE grids (task_id text NOT NULL, anchor timestamptz NOT NULL, every interval NOT NULL);
INSERT INTO grids
	SELECT 'recurring ' || i, clock_timestamp(), (10 + 7 * i) * interval '5 ms'
	FROM generate_series(1, 6) AS i;
SELECT taskshed.add_task('effect', run_at => anchor, task_id => task_id, every => every, catch_up => 'all',
	max_attempts => 0, retry_delay => '10 ms', owner => 'app')
FROM grids;
});

# Fills a disk up to its last page.
sub fill
{
	my ($disk) = @_;
	my $block = '.' x 65536;

	open my $file, '>>', "$disks/$disk/filler" or die "filler: $!";
	while (syswrite $file, $block) { }
	die "filler: $!" unless $!{ENOSPC};
	close $file;
	return;
}

sub make_space
{
	my ($disk) = @_;

	unlink "$disks/$disk/filler" or die "filler: $!";
	return;
}

my $scheduler_pid =
  q{SELECT scheduler_pid FROM taskshed.status WHERE database = current_database()};

# Is the server there?  It ends when it finds no space for its recovery.
sub is_running
{
	return !PostgreSQL::Test::Utils::system_log('pg_ctl', '-D',
		$node->data_dir, 'status');
}

# Adds tasks as a client does, who is told whether that has worked.
my @acknowledged;
my $batch = 0;

sub add_some
{
	my ($rc) =
	  eval { $node->psql('postgres', 'SELECT add_some(' . ++$batch . ')') };

	push @acknowledged, $batch if defined $rc && $rc == 0;
	return;
}

# Has tasks flow until something is the case.
sub add_until
{
	my ($what, $condition) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	until ($condition->())
	{
		die "waited until $what" if time > $end;
		add_some();
		usleep(100_000);
	}
	return;
}

# Waits until so many more runs have had their effect.
sub await_effects_of_all
{
	my ($n)    = @_;
	my $count  = 'SELECT count(*) FROM effects';
	my $before = TaskshedFaults::ask($node, $count);

	add_until("there are $n more effects",
		sub { return TaskshedFaults::ask($node, $count) >= $before + $n; });
	return;
}


# Brings the server up, if it does not come by itself.
sub bring_up
{
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	my $rc;

	until (defined($rc = eval { $node->psql('postgres', 'SELECT 1') })
		  && $rc == 0)
	{
		die 'the server does not come up' if time > $end;
		unless (is_running())
		{
			$node->stop('immediate', fail_ok => 1);
			$node->start;
		}
		usleep(100_000);
	}
	return;
}

await_effects_of_all(300);

# The disk of the data is full.  Callbacks fail, and there is no space to write
# that down; the processes stay and try again.
my $log       = -s $node->logfile;
my $scheduler = $node->safe_psql('postgres', $scheduler_pid);
fill('data');
add_until(
	'failures could not be recorded',
	sub {
		fill('data');
		return count_in_log($node,
			qr/could not record that task .*No space left/, $log) >= 10;
	});
is( count_in_log(
		$node,
		qr/background worker "taskshed \w+" .* exited with exit code/, $log),
	0,
	'no process ends because the disk is full');

# So it is with runs that have lost their workers.
add_until(
	'lost runs could not be recorded',
	sub {
		fill('data');
		$node->psql(
			'postgres', q{
			SELECT pg_terminate_backend(worker_pid) FROM taskshed.tasks
			WHERE worker_pid IS NOT NULL});
		return count_in_log($node,
			qr/could not record interrupted runs: .*No space left/, $log) >=
		  3;
	});
is($node->safe_psql('postgres', $scheduler_pid),
	$scheduler, 'the scheduler is still the same one');
make_space('data');
await_effects_of_all(300);

# The disk of the WAL is full.  The server goes down, and comes up as long as
# its recovery finds some space.
$log = -s $node->logfile;
fill('wal');
add_until(
	'the server has gone down for want of space',
	sub {
		fill('wal');
		return !is_running()
		  || count_in_log($node, qr/PANIC: .*No space left on device/, $log)
		  >= 5;
	});
cmp_ok(count_in_log($node, qr/PANIC: .*No space left on device/, $log),
	'>', 0, 'without space for its WAL the server goes down');
make_space('wal');
bring_up();
await_effects_of_all(300);

# What has become of all that.
$node->safe_psql('postgres',
	q{SELECT taskshed.pause_tasks(array(SELECT task_id FROM grids), owner => 'app')}
);
await_no_task($node, 'once %');
await_no_task($node, 'frail %');
await(
	$node, q{
	SELECT NOT EXISTS (SELECT FROM taskshed.tasks
		WHERE state <> 'failed' AND (paused_at IS NULL OR state = 'running'))},
	'nothing is due any more');

is( $node->safe_psql(
		'postgres',
		'SELECT unnest(ARRAY['
		  . join(',', map { "'once $_.1'" } @acknowledged)
		  . ']) EXCEPT SELECT task_id FROM added'),
	'',
	'what clients were told to be added was added');

my $expected = 'SELECT task_id FROM added';
my $seen = q{SELECT task_id FROM effects WHERE task_id NOT LIKE 'recurring%'};
is( $node->safe_psql(
		'postgres', "($expected) EXCEPT ALL $seen ORDER BY 1 LIMIT 10"),
	'',
	'no one-off task is lost');
is( $node->safe_psql(
		'postgres', "$seen EXCEPT ALL ($expected) ORDER BY 1 LIMIT 10"),
	'',
	'none is doubled');
is( $node->safe_psql(
		'postgres', q{
		SELECT task_id, last_status, last_sqlstate FROM taskshed.tasks
		WHERE state = 'failed' LIMIT 10}
	),
	'',
	'no task has failed for good');
my $times = q{
	SELECT task_id, planned FROM grids,
		generate_series(anchor, (SELECT max(planned) FROM effects e WHERE e.task_id = grids.task_id),
			every) AS planned};
is( $node->safe_psql(
		'postgres', qq{
		$times EXCEPT ALL SELECT task_id, planned FROM effects LIMIT 10}
	),
	'',
	'no recurring time is lost');
is( $node->safe_psql(
		'postgres', qq{
		SELECT task_id, planned FROM effects WHERE task_id LIKE 'recurring%'
		EXCEPT ALL ($times) LIMIT 10}),
	'',
	'none is doubled');
is( $node->safe_psql(
		'postgres', q{
		(SELECT 'effect', task_id, planned, pid FROM effects
			EXCEPT ALL SELECT 'effect', task_id, scheduled_at, worker_pid
			FROM taskshed.runs WHERE status = 'succeeded')
		UNION ALL
		(SELECT 'run', task_id, scheduled_at, worker_pid
			FROM taskshed.runs WHERE status = 'succeeded'
			EXCEPT ALL SELECT 'run', task_id, planned, pid FROM effects)
		LIMIT 10}),
	'',
	'the history has the same runs');
is( $node->safe_psql(
		'postgres', q{
		SELECT DISTINCT status, sqlstate, message FROM taskshed.runs
		WHERE status NOT IN ('succeeded', 'interrupted')
			AND (status <> 'failed' OR sqlstate <> '53100')}),
	'',
	'nothing has failed but for want of space');

diag(
	'runs: ' . $node->safe_psql(
		'postgres', q{
		SELECT string_agg(status || ' ' || n, ', ' ORDER BY status)
		FROM (SELECT status, count(*) FROM taskshed.runs GROUP BY 1) AS x (status, n)}
	));

# A server that is started while the disk is as good as full has a page to
# begin with, or two, or three.  It may or may not get through; in between there
# is a number with which it gets as far as taskshed's own file, and not further.
$node->stop;
unlink $node->data_dir . '/pg_stat_tmp/taskshed_running' or die $!;
$log = -s $node->logfile;
foreach my $pages (1 .. 12)
{
	fill('data');
	truncate "$disks/data/filler", (-s "$disks/data/filler") - 4096 * $pages
	  or die $!;
	$node->stop if $node->start(fail_ok => 1);
	last        if count_in_log($node, qr/could not map file/, $log);
}
is( count_in_log(
		$node, qr/could not map file .*No space left on device/, $log),
	1,
	'a server is not ended by a store to a file that has no space');

make_space('data');
$node->start;
await_effects_of_all(100);

$node->stop;
done_testing();
