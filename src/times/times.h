/*-------------------------------------------------------------------------
 *
 * times.h
 *		When: arithmetic of times, without tables and without shared memory.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_TIMES_TIMES_H
#define TASKSHED_TIMES_TIMES_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "pgtime.h"
#include "utils/timestamp.h"

/* ------------------------------------------------------------------------
 * zone.c
 */
/* A time during which the offset of a zone stays the same, in s since 1970. */
typedef struct ZoneSpan
{
	int64		from;
	int64		to;				/* PG_INT64_MAX: for ever */
	int			offset;			/* s east of UTC */
} ZoneSpan;

extern void zone_span(pg_tz *zone, int64 from, ZoneSpan *span);
extern bool zone_instant(pg_tz *zone, int64 local, int64 *instant);
extern int64 zone_unseen(pg_tz *zone, int64 instant);
extern bool zone_timestamp(int64 seconds, int usecs, TimestampTz *result);
extern int64 zone_seconds(TimestampTz timestamp);

/* ------------------------------------------------------------------------
 * every.c
 */
extern bool every_moves_forward(const Interval *every);
extern void every_check_length(const char *what, const Interval *interval);
extern void every_check(const Interval *every);
extern bool every_next(TimestampTz anchor, const Interval *every, pg_tz *zone,
					   TimestampTz after, TimestampTz *next);

/* ------------------------------------------------------------------------
 * cron.c
 */
/* What a cron expression says.  In the sets bit n stands for the value n. */
typedef struct Cron
{
	uint64		seconds;
	uint64		minutes;
	uint32		hours;
	uint32		days;			/* of the month, from 1 */
	uint32		nearest;		/* days whose nearest workday is meant */
	uint16		months;			/* from 1 */
	uint8		weekdays;		/* 0 is Sunday */
	uint8		nth_weekdays[5];	/* the first, second ... of the month */
	uint8		last_weekdays;	/* the last of the month */
	bool		last_day;		/* of the month */
	bool		last_workday;	/* of the month */
	bool		any_day;		/* with one of these both must match; without, */
	bool		any_weekday;	/* one of days and weekdays */
	bool		by_elapsed_time;	/* a wildcard or step in minutes or hours */
	int			period;			/* s; if not 0, nothing else counts */
} Cron;

/* The bit for a number in one of these sets, and those for a range of them. */
#define CRON_BIT(n) (UINT64CONST(1) << (n))
#define CRON_BITS(low, high) ((CRON_BIT((high) - (low) + 1) - 1) << (low))

extern int	cron_next_bit(uint64 bits, int n);
extern bool cron_can_match(const Cron *cron);
extern bool cron_next(const Cron *cron, pg_tz *zone, TimestampTz after, TimestampTz *next);

/* ------------------------------------------------------------------------
 * cron_parse.c
 */
/* What is wrong with an expression; detail and hint may be NULL. */
typedef struct CronProblem
{
	const char *message;
	const char *detail;
	const char *hint;
	bool		is_word;		/* it may be a name, and is nothing like a
								 * schedule */
} CronProblem;

extern bool cron_parse(const char *text, Cron *cron, CronProblem *problem);
extern void cron_check(const char *text, Cron *cron, const char *word_hint);
extern void cron_check_interval(const char *text);

/* ------------------------------------------------------------------------
 * cron_describe.c
 */
extern char *cron_describe(const Cron *cron, const char *zone, const char *offsets);

/* ------------------------------------------------------------------------
 * calendar.c
 */
/* When a recurring task runs. */
typedef struct Calendar
{
	pg_tz	   *zone;
	bool		has_schedule;
	Cron		schedule;		/* if it has one; otherwise: */
	Interval	every;
	TimestampTz anchor;
} Calendar;

extern bool calendar_next(const Calendar *calendar, TimestampTz after, TimestampTz *next);

#endif							/* TASKSHED_TIMES_TIMES_H */
