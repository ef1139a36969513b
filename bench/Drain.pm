
# How fast a backlog is worked off.
#
# All tasks are due before the first may start.  taskshed begins without any
# worker, so starting them counts; it runs each task in a transaction of its own
# and writes a record of each run.  The limit beside it does neither: a loop in
# SQL that takes the same rows a hundred at a time, in as many sessions, with
# one commit (which waits for the disk) for the hundred.  Written as one statement
# a batch, which no scheduler could do since it must know the function beforehand
# and one that fails takes the whole batch along, it is faster still.
#
# The peers run what is the same for them: nothing, a JavaScript function that
# returns at once, where taskshed calls an empty function of PL/pgSQL; and one
# INSERT a task.  At their best settings they get as many tasks as taskshed; at
# their defaults fewer, or so many seconds, since that would take hours and the
# rate is what is compared.  The loop and the peers at their best are shown once
# more with commits that do not wait for the disk, and taskshed with such that
# do.  CPU is that of all processes of the server, and does not have the peers'
# own processes in it: these are in the notes.
#
# taskshed and the loop are measured with wal_writer_flush_after = 0, too.

package Drain;

use strict;
use warnings;
use utf8;

use Bench;
use Contestants;
use List::Util qw(max);
use Server;

my @peers = (
	[ 'graphile-worker, best settings', 'graphile', 1 ],
	[ 'graphile-worker, defaults',      'graphile', 0 ],
	[ 'pg-boss, best settings',         'pgboss',   1 ],
	[ 'pg-boss, defaults',              'pgboss',   0 ]);

# Before PostgreSQL 17, every commit that does not wait wakes the walwriter, unless that is told to
# flush whatever it writes: then it sleeps in the kernel.
my $eager_walwriter = 'wal_writer_flush_after = 0';

my $shared      = 'taskshed, 32 a commit';
my $waits       = 'taskshed, synchronous_commit = on';
my $many        = "$waits, " . 8 * $cores . ' workers';
my $group       = "$waits, 32 a commit";
my %settings_of = (
	$shared => { 'taskshed.tasks_per_commit'   => 32 },
	$waits  => { 'taskshed.synchronous_commit' => 'on' },
	$many   => {
		'taskshed.synchronous_commit' => 'on',
		'taskshed.max_workers'        => 8 * $cores
	},
	$group => {
		'taskshed.synchronous_commit' => 'on',
		'taskshed.tasks_per_commit'   => 32
	});

sub measure
{
	my $n         = $size{drain};
	my %rate_goal = (noop => 100_000, effect => 80_000);

	foreach my $callback ('noop', 'effect')
	{
		my $what =
		  $callback eq 'noop'
		  ? 'drain, no-op'
		  : 'drain, callback inserts a row';
		my @contestants = (
			taskshed => sub { drain(database('taskshed'), $n, $callback) },
			limit    => sub { drain_plain($n, $callback, 'loop') },
			set      => sub { drain_plain($n, $callback, 'set') });

		foreach my $peer (@peers)
		{
			my ($who, $name, $best) = @$peer;
			push @contestants, $who => sub {
				return if !$best && $_[0] > $size{few_rounds};
				return drain_peer($name, $callback, $best);
			};
		}
		my %sub = @contestants;

		# (A peer's no-op has no commit to wait for.)
		foreach my $who ('limit',
			map { $callback eq 'effect' && $_->[2] ? $_->[0] : () } @peers)
		{
			push @contestants,
			  "$who, synchronous_commit = off" =>
			  with_settings({ synchronous_commit => 'off' }, $sub{$who});
		}
		foreach my $who (sort keys %settings_of)
		{
			my $some =
			  $who eq $waits || $who eq $many ? $size{drain_durable} : $n;

			push @contestants,
			  $who => with_settings($settings_of{$who},
				sub { drain(database('taskshed'), $some, $callback) });
		}
		push @contestants, map {
			("$_, $eager_walwriter" =>
				  with_settings({ wal_writer_flush_after => 0 }, $sub{$_}))
		} qw(taskshed limit);
		if ($callback eq 'effect')
		{
			push @contestants, pg_cron => sub {
				die "not installed\n" if !$have{pg_cron};
				return                if $_[0] > $size{few_rounds};
				return drain_cron($size{cron});
			};
		}
		rates($what, $callback, $rate_goal{$callback},
			alternate(@contestants));
	}
	return;
}

sub rates
{
	my ($what, $callback, $goal, $figures) = @_;
	my $own    = field($figures->{taskshed}, 'rate');
	my $limit  = field($figures->{limit},    'rate');
	my @others = grep { !/^(taskshed|limit|set)$/ } keys %$figures;
	my %common =
	  (part => 'drain', what => $what, unit => 'tasks/s', chart => $what);

	my $noop = $callback eq 'noop';

	row(%common,
		who        => 'taskshed',
		values     => $own,
		goal       => [ '>=', $goal ],
		ratio      => ratios($own, $limit),
		to         => 'the limit',
		ratio_goal => [ '>=', $noop ? 0.65 : 0.7 ]);
	row(%common,
		who        => $shared,
		values     => field($figures->{$shared}, 'rate'),
		ratio      => ratios(field($figures->{$shared}, 'rate'), $limit),
		to         => 'the limit',
		ratio_goal => [ '>=', $noop ? 1.2 : 1.05 ]);
	row(%common,
		who    => "limit: SQL loop, batches of 100, $cores sessions",
		values => $limit);
	row(%common,
		who    => 'limit: the same, one statement a batch',
		values => field($figures->{set}, 'rate'),
		ratio  => ratios(field($figures->{set}, 'rate'), $own),
		to     => 'taskshed');

	# Both with the same commits, too.
	my $off = field($figures->{'limit, synchronous_commit = off'}, 'rate');

	row(%common,
		chart  => undef,
		who    => "$_, synchronous_commit = off for both",
		values => field($figures->{$_}, 'rate'),
		ratio  => ratios(field($figures->{$_}, 'rate'), $off),
		to     => 'the limit') foreach 'taskshed', $shared;
	row(%common,
		chart  => undef,
		who    => "$_, for both",
		values => field($figures->{$_}, 'rate'),
		ratio  => ratios(field($figures->{$_}, 'rate'), $limit),
		to     => 'the limit') foreach $waits, $many, $group;
	row(%common,
		chart  => undef,
		who    => "taskshed, $eager_walwriter for both",
		values => field($figures->{"taskshed, $eager_walwriter"}, 'rate'),
		ratio  => ratios(
			field($figures->{"taskshed, $eager_walwriter"}, 'rate'),
			field($figures->{"limit, $eager_walwriter"},    'rate')),
		to => 'the limit');
	foreach my $who (grep { $_ ne $shared } sort @others)
	{
		my $rate = field($figures->{$who}, 'rate');

		row(%common,
			who    => $who,
			values => $rate,
			ratio  => ratios($rate, $own),
			to     => 'taskshed');
	}
	peers_beside($what, $figures) if !$noop;
	cpu($noop ? 'no-ops' : 'inserts', $figures, sort @others);
	xids($what, $figures);
	lags_of_cron($figures->{pg_cron}) if !$noop;
	return;
}

# taskshed beside the best peer: as the defaults of both are, and both with
# commits that wait, and both without.
sub peers_beside
{
	my ($what, $figures) = @_;
	my $defaults = qr/^(?!.*synchronous_commit)/;

	foreach (
		[ 'taskshed', '', $defaults, 7 ],
		[ $shared,    '', $defaults, 9 ],
		[
			'taskshed',
			', synchronous_commit = off for both',
			qr/commit = off/
		],
		[ $shared, ', synchronous_commit = off for both', qr/commit = off/ ],
		[ $waits,  ', for both',                          $defaults ],
		[ $many,   ', for both',                          $defaults ],
		[ $group,  ', for both',                          $defaults, 4 ])
	{
		my ($who, $how, $fits, $goal) = @$_;

		best_peer(
			$what,
			"$who / best peer$how",
			field($figures->{$who}, 'rate'),
			$figures, $fits, defined $goal ? [ '>=', $goal ] : undef);
	}
	return;
}

sub cpu
{
	my ($of, $figures, @others) = @_;
	my $what = "CPU of the server for 10,000 $of";

	foreach my $who ('taskshed', 'limit', @others)
	{
		my ($cpu, $client) =
		  map { milliseconds(field($figures->{$who}, $_)) }
		  qw(cpu10k client10k);

		# (A peer that does a few jobs in seconds uses next to nothing.)
		next if ref $cpu && $figures->{$who}[0]{done} < 100;
		row(part   => 'drain',
			what   => $what,
			who    => $who,
			values => $cpu,
			unit   => 'ms',
			chart  => $who =~ /defaults/ ? undef : $what,
			goal   => $who eq 'taskshed'
			  && $of eq 'inserts' ? [ '<=', 250 ] : undef,
			ratio => $who eq 'taskshed' ? undef
			: ratios(
				$cpu, milliseconds(field($figures->{taskshed}, 'cpu10k'))),
			to   => 'taskshed',
			note => ref $client && @$client
			? sprintf('and %.0f ms of its own process', median(@$client))
			: undef);
	}
	return;
}

sub milliseconds
{
	my ($seconds) = @_;

	return ref $seconds
	  ? [ map { 1000 * $_ } grep { defined } @$seconds ]
	  : $seconds;
}

# How many transaction ids there would be at a rate that is the same everywhere,
# and at that of this machine.
sub xids
{
	my ($what, $figures) = @_;

	foreach my $who ('taskshed', $shared)
	{
		my $own  = $figures->{$who};
		my $used = field($own, 'xids');

		row(part   => 'drain',
			what   => "$what: transaction ids at 80,000 runs/s",
			who    => $who,
			values => ref $used ? [ map { 80_000 * $_ } @$used ] : $used,
			unit   => '/s',
			note   => ref $own
			? sprintf('%.3f for a run, %.0f/s at its own rate',
				median(@$used), median(map { $_->{xids} * $_->{rate} } @$own))
			: undef,
			goal => $who eq $shared ? [ '<=', 5000 ] : undef);
	}
	return;
}

# A row that compares with the best peer of each round, of those whose name fits.
sub best_peer
{
	my ($what, $who, $own, $figures, $fits, $goal) = @_;
	my @peers =
	  grep { !/^(taskshed|limit|set)/ && /$fits/ && ref $figures->{$_} }
	  keys %$figures;
	my $best = [
		map {
			my $round = $_;
			max(0,
				map {
						$round < @{ $figures->{$_} }
					  ? $figures->{$_}[$round]{rate}
					  : ()
				} @peers) || ();
		} 0 .. (ref $own && @peers ? $#$own : -1)
	];
	row(part   => 'drain',
		what   => $what,
		who    => $who,
		values => @$best
		? ratios($own, $best)
		: 'there is no peer to compare with',
		unit => '×',
		goal => $goal);
	return;
}

# What the same minutes of pg_cron say about lag.
sub lags_of_cron
{
	my ($figures) = @_;

	return if !ref $figures;
	foreach my $p (50, 99)
	{
		row(part   => 'drain',
			what   => "lag p$p of a full minute's jobs",
			who    => "pg_cron, $size{cron} jobs",
			values =>
			  [ map { percentile($p / 100, @{ $_->{lags} }) } @$figures ],
			unit => 'ms');
	}
	return;
}

1;
