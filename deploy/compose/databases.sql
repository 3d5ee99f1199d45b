-- One database for each service; nobody reads another one's.
CREATE DATABASE scheduler;
CREATE DATABASE inference;
CREATE DATABASE trainer;
