
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
				return if $quick && !$best && $_[0] > 1;
				return drain_peer($name, $callback, $best);
			};
		}
		my %other = (taskshed => 'on', limit => 'off');

		# (A peer's no-op has no commit to wait for.)
		$other{ $_->[0] } = 'off'
		  foreach grep { $callback eq 'effect' && $_->[2] } @peers;
		my %sub = @contestants;

		foreach my $who (sort keys %other)
		{
			my $setting =
			  $who eq 'taskshed'
			  ? 'taskshed.synchronous_commit'
			  : 'synchronous_commit';

			push @contestants,
			  "$who, synchronous_commit = $other{$who}" =>
			  with_setting($setting, $other{$who}, $sub{$who});
		}
		push @contestants, map {
			("$_, $eager_walwriter" =>
				  with_setting('wal_writer_flush_after', 0, $sub{$_}))
		} qw(taskshed limit);
		if ($callback eq 'effect')
		{
			push @contestants, pg_cron => sub {
				die "not installed\n" if !$have{pg_cron};
				return                if $quick && $_[0] > 1;
				return drain_cron($size{cron});
			};
		}
		rates($what, $callback, $rate_goal{$callback},
			alternate(@contestants));
	}
	return;
}

# The same contestant with a setting of the server that is not the default.
sub with_setting
{
	my ($name, $value, $sub) = @_;

	return sub {
		configure($name => $value);
		my $figures = eval { $sub->(@_) };
		my $error   = $@;
		configure($name => undef);
		return $figures || die $error;
	};
}

sub rates
{
	my ($what, $callback, $goal, $figures) = @_;
	my $own    = field($figures->{taskshed}, 'rate');
	my $limit  = field($figures->{limit},    'rate');
	my @others = grep { !/^(taskshed|limit|set)$/ } keys %$figures;
	my %common =
	  (part => 'drain', what => $what, unit => 'tasks/s', chart => $what);

	row(%common,
		who        => 'taskshed',
		values     => $own,
		goal       => [ '>=', $goal ],
		ratio      => ratios($own, $limit),
		to         => 'the limit',
		ratio_goal => $callback eq 'noop' ? [ '>=', 0.5 ] : undef);
	row(%common,
		who    => "limit: SQL loop, batches of 100, $cores sessions",
		values => $limit);
	row(%common,
		who    => 'limit: the same, one statement a batch',
		values => field($figures->{set}, 'rate'),
		ratio  => ratios(field($figures->{set}, 'rate'), $own),
		to     => 'taskshed');

	# Both with the same commits, too.
	row(%common,
		chart  => undef,
		who    => 'taskshed, synchronous_commit = off for both',
		values => $own,
		ratio  => ratios(
			$own, field($figures->{'limit, synchronous_commit = off'}, 'rate')
		),
		to => 'the limit');
	row(%common,
		chart  => undef,
		who    => 'taskshed, synchronous_commit = on for both',
		values =>
		  field($figures->{'taskshed, synchronous_commit = on'}, 'rate'),
		ratio => ratios(
			field($figures->{'taskshed, synchronous_commit = on'}, 'rate'),
			$limit),
		to => 'the limit');
	row(%common,
		chart  => undef,
		who    => "taskshed, $eager_walwriter for both",
		values => field($figures->{"taskshed, $eager_walwriter"}, 'rate'),
		ratio  => ratios(
			field($figures->{"taskshed, $eager_walwriter"}, 'rate'),
			field($figures->{"limit, $eager_walwriter"},    'rate')),
		to => 'the limit');
	foreach my $who (sort @others)
	{
		my $rate = field($figures->{$who}, 'rate');

		row(%common,
			who    => $who,
			values => $rate,
			ratio  => ratios($rate, $own),
			to     => 'taskshed');
	}
	return if $callback eq 'noop';

	# taskshed and the best peer, both with commits that wait, and both without
	best_peer($what, 'taskshed / best peer',
		$own, $figures, qr/^(?!.*synchronous_commit)/, [ '>=', 6 ]);
	best_peer($what,
		'taskshed / best peer, synchronous_commit = off for both',
		$own, $figures, qr/synchronous_commit = off/);
	best_peer(
		$what,
		'taskshed / best peer, synchronous_commit = on for both',
		field($figures->{'taskshed, synchronous_commit = on'}, 'rate'),
		$figures,
		qr/^(?!.*synchronous_commit)/);

	foreach my $who ('taskshed', 'limit', sort @others)
	{
		my $cpu = field($figures->{$who}, 'cpu10k');

		# (A peer that does a few jobs in seconds uses next to nothing.)
		next if ref $cpu && $figures->{$who}[0]{done} < 100;
		my $client =
		  ref $cpu
		  ? median(grep { defined } @{ field($figures->{$who}, 'client10k') })
		  : undef;

		row(part   => 'drain',
			what   => 'CPU of the server for 10,000 inserts',
			who    => $who,
			values => $cpu,
			unit   => 's',
			chart  => $who =~ /defaults/ ? undef
			: 'CPU of the server for 10,000 inserts',
			goal  => $who eq 'taskshed' ? [ '<=', 0.25 ] : undef,
			ratio => $who eq 'taskshed' ? undef
			: ratios($cpu, field($figures->{taskshed}, 'cpu10k')),
			to   => 'taskshed',
			note => defined $client
			? sprintf('and %.2f s of its own process', $client)
			: undef);
	}
	lags_of_cron($figures->{pg_cron});
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
