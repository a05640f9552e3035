"""The data stage: interaction logs, titles and images in; examples, candidate lists and an audit out.

build            the stage from the sources to its tables
checks           what is wrong before anything is built, and what identifies the sources
source_look      what the files hold, without building anything
published_layouts  which kind of source a file or folder is
published_tables   the layouts among them that are tables with a few keys
log_facts        what a log says of how it should be used
readers/         published layouts and your own tables become a corpus
attributes       columns of items and users that templates may say
id_forms         ids that people would take for one another
interaction_log  a corpus in integer codes
log_rows         its rows, as they are read and sorted
history_rows     histories that lack some of what stands before their targets
rejected_pairs   what users said no to, and until when
explicit_negatives  what that means for targets, histories and negatives
event_roles      what common words of events stand for
event_tables     the words of events, of the log and of histories, as tables
sorted_ids       places of ids among sorted ones
first_rows       which of the rows that repeat a pair stays
filters          what is kept of a log
seen_pairs       what users have seen although a filter dropped it
shown_items      what users were shown and did not click
impressions      what was shown beside each interaction
choices          the clicks of an impression as one choice
published_split  what becomes of a split that the source publishes
splits           who is trained on and who is tested on
temporal         what a split by time knows at each of its moments
popular_items    the most popular items of each user
examples         targets and the histories before them
negatives/       candidate lists: what the targets are ranked among
images/          the images of the items
audit/           counts, findings and statistics
new_items        items that came after the data stage, for one command
cold_items       items that are held out of training entirely
unseen_items     items of the table that nobody interacted with yet
catalogue        what the table of items says of each
tables           the tables that later stages read
pairs_file       a table of users and items that are to be scored
id_list_files    files of users, items and interactions that a command is given
"""

from msr_adapter.data.build import BuildInputs, build
from msr_adapter.data.checks import check_data, check_protocol, protocol_stamp, source_stamp
from msr_adapter.data.negatives.candidate_files import export_candidates, export_format
from msr_adapter.data.readers.sources import draws_images
from msr_adapter.data.source_look import look_through

__all__ = [
    "BuildInputs", "build", "check_data", "check_protocol", "draws_images", "export_candidates",
    "export_format", "look_through", "protocol_stamp", "source_stamp",
]  # fmt: skip
