/*-------------------------------------------------------------------------
 *
 * process.c
 *		What all our processes do alike: serve interrupts, keep their settings up
 * to date, and measure time.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "shared/shared.h"

/* ts_shared->reloads when this process has last read its settings. */
static bool has_read_settings = false;
static uint32 reloads_noted = 0;

/*
 * Give a setting a value, whatever has been set for the role or database.  For
 * our own processes when they have connected.  Do nothing where the server has
 * no such setting.
 */
void
process_override_setting(const char *name, const char *value)
{
	if (GetConfigOption(name, true, false) != NULL)
		SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * Serve interrupts, and reload settings.  For the loops of our processes.
 * Asked to terminate, leave without a word in the log, as core's own background
 * processes do.
 */
void
process_interrupts(void)
{
	if (ProcDiePending)
	{
		ts_debug(DEBUG1, "process leaves: it was asked to terminate");
		proc_exit(1);
	}
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		reloads_noted = pg_atomic_read_u32(&ts_shared->reloads);
		has_read_settings = true;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/*
 * Return whether this process has the settings that the launcher has seen.  It
 * may be told of a reload later than that, or may have come with old ones while
 * it was told.  If it is not known to have them it reads them when it next
 * serves interrupts.
 */
bool
process_has_settings(void)
{
	if (!has_read_settings || reloads_noted != pg_atomic_read_u32(&ts_shared->reloads))
		ConfigReloadPending = true;
	return !ConfigReloadPending;
}

/* Return microseconds that pass whatever is done to the clock. */
int64
process_ticks(void)
{
	instr_time	ticks;

	INSTR_TIME_SET_CURRENT(ticks);
	return (int64) INSTR_TIME_GET_MICROSEC(ticks);
}

/*
 * Return whether the clock was set back, by more than a second, since this
 * process last asked.  If so, no time of day that was reckoned from the
 * present, to wait for it or to compare with it, is of use any more.
 */
bool
process_clock_was_set_back(void)
{
	static bool known = false;
	static int64 offset;
	int64		ticks = process_ticks();
	int64		offset_now = GetCurrentTimestamp() - ticks;
	bool		set_back = known && offset_now < offset - USECS_PER_SEC;

	/* (what delays us in between makes it look later, not earlier) */
	if (!known || set_back || offset_now > offset)
		offset = offset_now;
	known = true;
	return set_back;
}
