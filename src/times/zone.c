/*-------------------------------------------------------------------------
 *
 * zone.c
 *		Between the local time of a zone and instants.
 *
 * A local time is a number of seconds, too: those that had passed since 1970
 * had the zone's clock always been that of UTC.  It means the first instant at
 * which the zone's clock shows it or a later time.  So one that exists twice
 * is its first occurrence, and one that is skipped is the instant right after
 * the gap.  What is earlier on the clock is never later in time.
 *
 * Everything here is arithmetic on its arguments and the server's zone data.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "utils/timestamp.h"

#include "times/times.h"

/*
 * No clock is further than this from UTC, in seconds: even a zone written as
 * POSIX has it may not be as much as seven days off.
 */
#define MAX_OFFSET		(8 * SECS_PER_DAY)

/*
 * Find the time from an instant on, in seconds since 1970, during which a
 * zone's offset stays what it is.  (What changes at the end need not be the
 * offset.)
 */
void
zone_span(pg_tz *zone, int64 from, ZoneSpan *span)
{
	pg_time_t	at = from;
	pg_time_t	boundary;
	long int	before;
	long int	after;
	int			is_dst;
	int			found = pg_next_dst_boundary(&at, &before, &is_dst, &boundary, &after, &is_dst, zone);

	/* at the last change in its table the server knows none that follows */
	if (found == 0)
	{
		at = from + 1;
		found = pg_next_dst_boundary(&at, &before, &is_dst, &boundary, &after, &is_dst, zone);
	}
	span->from = from;
	span->to = found > 0 ? boundary : PG_INT64_MAX;
	span->offset = found >= 0 ? before : 0;
}

/*
 * Find the instant that a local time means.  Return whether the clock shows
 * that time then, and not a later one.
 */
bool
zone_instant(pg_tz *zone, int64 local, int64 *instant)
{
	ZoneSpan	span;

	zone_span(zone, local - MAX_OFFSET, &span);
	while (local - span.offset >= span.to)
		zone_span(zone, span.to, &span);
	*instant = Max(local - span.offset, span.from);
	return *instant == local - span.offset;
}

/* Return the first local time that means an instant after this one. */
int64
zone_unseen(pg_tz *zone, int64 instant)
{
	ZoneSpan	span = {.to = instant - MAX_OFFSET};
	int64		unseen = PG_INT64_MIN;

	do
	{
		zone_span(zone, span.to, &span);
		unseen = Max(unseen, Min(span.to, instant + 1) + span.offset);
	} while (span.to <= instant);
	return unseen;
}

/*
 * Turn seconds since 1970 into a timestamp.  Return false if that cannot hold
 * them.
 */
bool
zone_timestamp(int64 seconds, int usecs, TimestampTz *result)
{
	seconds -= (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	return !pg_mul_s64_overflow(seconds, USECS_PER_SEC, result) &&
		!pg_add_s64_overflow(*result, usecs, result) && IS_VALID_TIMESTAMP(*result);
}

/* Return the seconds since 1970 of a finite timestamp, its fraction left out. */
int64
zone_seconds(TimestampTz timestamp)
{
	int64		seconds = timestamp / USECS_PER_SEC;

	if (timestamp % USECS_PER_SEC < 0)
		seconds--;
	return seconds + (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
}
